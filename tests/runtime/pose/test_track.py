"""Tracks: interpolation, extrapolation and what is said of an old pose.

Covers: runtime/pose/record.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.geodesy import distance_m
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.track import PoseTrack

S = 1_000_000_000


def track(*poses: tuple[float, Pose]) -> PoseTrack:
    made = PoseTrack("utc")
    for t_s, pose in poses:
        made.add(round(t_s * S), pose)
    return made


def test_half_way_between_two_fixes() -> None:
    """Position and height are half way, the attitude turns the short way, the radius grows by a·s·(gap - s)/2."""
    made = track(
        (0, Pose(1, 47.0, 8.0, 100.0, gimbal=Attitude(350, -90, 0), h_acc_m=2.0)),
        (1, Pose(1 + S, 47.0001, 8.0002, 110.0, gimbal=Attitude(10, -90, 0), h_acc_m=1.0)),
    )
    pose = made.at(S // 2)
    assert pose is not None
    assert (pose.lat_deg, pose.lon_deg, pose.height_m) == pytest.approx((47.00005, 8.0001, 105.0))
    assert pose.gimbal is not None
    assert (pose.gimbal.yaw_deg + 1) % 360 == pytest.approx(1.0, abs=1e-6)
    assert pose.quality == "interpolated"
    assert pose.h_acc_m == pytest.approx(2.0 + 3.0 * 0.5 * 0.5 / 2)


def test_across_the_date_line() -> None:
    """Half way from 179.9 east to 179.9 west is 180, not 0."""
    pose = track((0, Pose(0, 0.5, 179.9)), (1, Pose(0, 0.5, -179.9))).at(S // 2)
    assert pose is not None
    assert abs(pose.lon_deg) == pytest.approx(180.0)


def test_velocity_carries_half_a_second_and_no_further() -> None:
    """At 10 m/s north the pose is 4 m on after 0.4 s; after 3 s it is the last known one, stale, its radius grown."""
    made = track((0, Pose(0, 47.0, 8.0, north_mps=10.0, east_mps=0.0, h_acc_m=1.0)))
    soon, late = made.at(round(0.4 * S)), made.at(3 * S)
    assert soon is not None
    assert late is not None
    assert soon.quality == "extrapolated"
    assert distance_m((47.0, 8.0), (soon.lat_deg, soon.lon_deg)) == pytest.approx(4.0, abs=0.01)
    assert late.quality == "stale"
    assert (late.lat_deg, late.lon_deg, late.age_ns) == (47.0, 8.0, 3 * S)
    assert late.h_acc_m == pytest.approx(1.0 + 10.0 * 3 + 3.0 * 9 / 2)


def test_a_hole_in_the_track_is_stale() -> None:
    """Between fixes a minute apart nothing is interpolated, and no attitude is invented."""
    pose = track(
        (0, Pose(0, 47.0, 8.0, gimbal=Attitude(0, -90, 0))), (60, Pose(0, 47.01, 8.0, gimbal=Attitude(0, -90, 0)))
    ).at(30 * S)
    assert pose is not None
    assert pose.quality == "stale"
    assert pose.lat_deg == 47.0
    assert pose.gimbal is None


def test_before_the_first_fix_nothing_is_known() -> None:
    """None before the first fix, except the half second that its velocity reaches back."""
    made = track((10, Pose(0, 47.0, 8.0, north_mps=10.0, east_mps=0.0)))
    assert made.at(5 * S) is None
    back = made.at(round(9.9 * S))
    assert back is not None
    assert back.lat_deg < 47.0
    assert PoseTrack("utc").at(0) is None


def test_a_live_track_forgets_what_is_old() -> None:
    """Only the last minutes are kept, however long the flight."""
    made = PoseTrack("monotonic", keep_ns=60 * S)
    for t in range(10_000):
        made.add(t * S, Pose(0, 47.0, 8.0, vehicle=Attitude(0, 0, 0)))
    assert len(made) <= 121
    assert made.at(9_999 * S) is not None


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.floats(-90, 90), st.floats(-180, 180)), max_size=8),
    st.integers(-(10**12), 10**13),
)
def test_any_track_answers_on_earth(fixes: list[tuple[int, float, float]], t_ns: int) -> None:
    """Whatever the fixes and their order, the answer is None or a position on the earth with an error radius."""
    made = PoseTrack("utc")
    for at_ns, lat, lon in fixes:
        made.add(at_ns, Pose(at_ns, lat, lon, north_mps=20.0, east_mps=-20.0))
    pose = made.at(t_ns)
    assert pose is None or (abs(pose.lat_deg) <= 90 and abs(pose.lon_deg) <= 180 and pose.age_ns >= 0)
