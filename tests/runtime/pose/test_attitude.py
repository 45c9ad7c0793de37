"""Attitudes: conversions, composing and slerp."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.pose.attitude import from_quaternion, mounted, rotate, slerp, to_quaternion
from overflight.runtime.pose.record import Attitude

angles = st.builds(
    Attitude,
    st.floats(0, 359.9),
    st.floats(-89, 89),
    st.floats(-179, 179),
)


def turned(angle: float) -> float:
    return (angle + 180.0) % 360.0 - 180.0


@given(angles)
def test_an_attitude_survives_its_quaternion(attitude: Attitude) -> None:
    """Yaw, pitch and roll come back from the quaternion they were turned into."""
    back = from_quaternion(to_quaternion(attitude))
    for name in ("yaw_deg", "pitch_deg", "roll_deg"):
        assert abs(turned(getattr(back, name) - getattr(attitude, name))) < 1e-6


@pytest.mark.parametrize("pitch", [-90.0, 90.0])
@pytest.mark.parametrize("yaw", [0.0, 45.0, 200.0])
def test_straight_down_yaw_carries_the_picture_s_turn(pitch: float, yaw: float) -> None:
    """At gimbal lock the yaw survives and the roll is 0."""
    back = from_quaternion(to_quaternion(Attitude(yaw, pitch, 0.0)))
    assert turned(back.yaw_deg - yaw) == pytest.approx(0.0, abs=1e-6)
    assert back.roll_deg == 0.0
    assert back.pitch_deg == pytest.approx(pitch)


def test_axes_are_north_east_down() -> None:
    """A camera pitched down 90 degrees looks at the ground, and its picture's top points where it is yawed."""
    q = to_quaternion(Attitude(90.0, -90.0, 0.0))
    assert rotate(q, (1.0, 0.0, 0.0)) == pytest.approx((0.0, 0.0, 1.0), abs=1e-12)
    assert rotate(q, (0.0, 0.0, -1.0)) == pytest.approx((0.0, 1.0, 0.0), abs=1e-12)


@given(angles, angles, st.floats(0.01, 0.99))
def test_slerp_turns_evenly(a: Attitude, b: Attitude, share: float) -> None:
    """The turn from the start to the interpolated attitude is that share of the whole turn."""

    def apart(m: Attitude, n: Attitude) -> float:
        return 2 * math.acos(min(1.0, abs(sum(x * y for x, y in zip(to_quaternion(m), to_quaternion(n), strict=True)))))

    assert apart(a, slerp(a, b, share)) == pytest.approx(share * apart(a, b), abs=1e-5)


def test_slerp_takes_the_short_way_past_north() -> None:
    """Half way from 350 to 10 degrees is 0, not 180."""
    assert turned(slerp(Attitude(350.0, -45.0, 0.0), Attitude(10.0, -45.0, 0.0), 0.5).yaw_deg) == pytest.approx(
        0.0, abs=1e-9
    )


def test_a_bolted_camera_tilts_with_the_airframe() -> None:
    """Nose up 10 degrees, a camera bolted at -90 looks 10 degrees ahead of straight down."""
    assert mounted(Attitude(30.0, 10.0, 0.0), Attitude(0.0, -90.0, 0.0)).pitch_deg == pytest.approx(-80.0)
