"""Footprints against published test vectors and an independent geodesy.

Covers: runtime/pose/camera_model.py, runtime/geodesy.py.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import UsageError
from overflight.runtime.geodesy import distance_m, offset
from overflight.runtime.pose.camera_model import CameraModel, angles_of_f35
from overflight.runtime.pose.footprint import locate, pitch_error_m
from overflight.runtime.pose.record import Attitude, Pose

CAMERA = CameraModel(71.6, 56.8)
SIZE = (4000, 3000)


def pose(yaw: float, pitch: float, *, height: float = 100.0, roll: float = 0.0, lat: float = 47.0) -> Pose:
    return Pose(0, lat, 8.0, height, gimbal=Attitude(yaw, pitch, roll), h_acc_m=1.0)


def sides_m(ring: tuple[tuple[float, float], ...]) -> list[float]:
    return [distance_m(a[::-1], b[::-1]) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)]


def signed_area(ring: tuple[tuple[float, float], ...]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))


def test_straight_down_from_100_m() -> None:
    """71.6 x 56.8 degrees at 100 m show 144.24 x 108.14 m of ground, 36 mm per pixel of 4000."""
    place = locate(pose(0, -90), CAMERA, SIZE)
    assert place is not None
    assert sides_m(place.footprint) == pytest.approx([144.24, 108.14, 144.24, 108.14], abs=0.02)
    assert place.gsd_m == pytest.approx(144.24 / 4000, rel=1e-3)
    assert distance_m((place.lat_deg, place.lon_deg), (47.0, 8.0)) < 0.01
    assert not place.clipped


def test_45_degrees_ahead_to_the_east() -> None:
    """Pitch -45, yaw 90: far corners at 402.3 m (azimuth 56.5, 123.5), near ones at 72.6 m (24.2, 155.8)."""
    pyproj = pytest.importorskip("pyproj", reason="pyproj is the independent geodesy")
    place = locate(pose(90, -45), CAMERA, SIZE)
    assert place is not None
    corners = [pyproj.Geod(ellps="WGS84").inv(8.0, 47.0, *corner)[::2] for corner in place.footprint]
    assert sorted(corners) == [
        (pytest.approx(az, abs=0.05), pytest.approx(m, abs=0.05))
        for az, m in [(24.24, 72.60), (56.49, 402.29), (123.51, 402.29), (155.76, 72.60)]
    ]


@given(st.floats(-70, 70), st.floats(-180, 180), st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_offset_agrees_with_pyproj(lat: float, lon: float, north: float, east: float) -> None:
    """Moving a point by metres is within 5 mm of the geodesic, anywhere below 70 degrees of latitude."""
    pyproj = pytest.importorskip("pyproj", reason="pyproj is the independent geodesy")
    geod = pyproj.Geod(ellps="WGS84")
    lon2, lat2, _ = geod.fwd(lon, lat, math.degrees(math.atan2(east, north)), math.hypot(north, east))
    got_lat, got_lon = offset(lat, lon, north, east)
    assert geod.inv(lon2, lat2, got_lon, got_lat)[2] < 0.005
    assert distance_m((lat, lon), (got_lat, got_lon)) == pytest.approx(math.hypot(north, east), rel=1e-3, abs=0.01)


@pytest.mark.parametrize(("pitch", "error"), [(-90, 3.5), (-45, 7.2), (-20, 33.0)])
def test_two_degrees_of_pitch(pitch: float, error: float) -> None:
    """2 degrees at 100 m are worth 3.5 m straight down, 7.2 m at -45 and 33 m at -20."""
    away = 0.0 if pitch == -90 else 100.0 / math.tan(math.radians(-pitch))
    assert pitch_error_m(100.0, away) == pytest.approx(error, abs=0.05)


@given(
    st.floats(0, 360), st.floats(-90, 30), st.floats(-40, 40), st.floats(1, 500), st.floats(5, 120), st.floats(-60, 60)
)
def test_a_footprint_is_whole_or_absent(
    yaw: float, pitch: float, roll: float, height: float, hfov: float, lat: float
) -> None:
    """For any attitude a footprint winds counter-clockwise, within the range limit, or there is none."""
    place = locate(pose(yaw, pitch, height=height, roll=roll, lat=lat), CameraModel(hfov), (1600, 900))
    if place is None:
        return
    assert signed_area(place.footprint) > 0
    assert all(distance_m((lat, 8.0), corner[::-1]) <= 1500.0 * 1.001 for corner in place.footprint)
    assert place.error_m >= 1.0
    assert len(place.footprint) == (32 if place.clipped else 4)


def test_the_horizon_clips() -> None:
    """A view that reaches above the horizon ends at the range limit and says so; one wholly above shows no ground."""
    place = locate(pose(0, -10), CAMERA, SIZE)
    assert place is not None
    assert place.clipped
    assert max(distance_m((47.0, 8.0), corner[::-1]) for corner in place.footprint) == pytest.approx(1500.0, rel=1e-3)
    assert locate(pose(0, 40), CAMERA, SIZE) is None


def test_tiles_pave_the_picture() -> None:
    """The four quarters of a picture cover its footprint: areas add up and each middle lies in its own corner."""
    whole = locate(pose(30, -60), CAMERA, SIZE)
    quarters = [locate(pose(30, -60), CAMERA, SIZE, (x, y, x + 0.5, y + 0.5)) for x in (0.0, 0.5) for y in (0.0, 0.5)]
    assert whole is not None
    assert sum(signed_area(q.footprint) for q in quarters if q is not None) == pytest.approx(
        signed_area(whole.footprint), rel=1e-4
    )
    assert len({(q.lat_deg, q.lon_deg) for q in quarters if q is not None}) == 4


def test_nothing_is_guessed() -> None:
    """Without height or direction, or on the ground, no place; looking down with no heading, no corners."""
    assert locate(Pose(0, 47.0, 8.0, None, gimbal=Attitude(0, -90, 0)), CAMERA, SIZE) is None
    assert locate(Pose(0, 47.0, 8.0, 100.0), CAMERA, SIZE) is None
    assert locate(pose(0, -90, height=0.5), CAMERA, SIZE) is None
    below = locate(Pose(0, 47.0, 8.0, 100.0), CameraModel(71.6, 56.8, gimbal_deg=-90.0), SIZE)
    assert below is not None
    assert below.footprint == ()
    assert below.gsd_m == pytest.approx(0.036, abs=1e-3)


def test_terrain_lowers_the_height() -> None:
    """Height above take-off is reduced by the ground's; height above ground is left alone."""
    hill = CameraModel(71.6, 56.8, ground_m=50.0)
    over_takeoff = locate(pose(0, -90), hill, SIZE)
    over_ground = locate(Pose(0, 47.0, 8.0, 100.0, "ground", gimbal=Attitude(0, -90, 0)), hill, SIZE)
    assert over_takeoff is not None
    assert over_takeoff.gsd_m == pytest.approx(0.018, abs=1e-3)
    assert over_ground is not None
    assert over_ground.gsd_m == pytest.approx(0.036, abs=1e-3)


def test_a_stale_pose_makes_a_stale_place() -> None:
    """What was made from a pose too old says so."""
    place = locate(Pose(0, 47.0, 8.0, 100.0, gimbal=Attitude(0, -90, 0), quality="stale"), CAMERA, SIZE)
    assert place is not None
    assert place.stale


def test_35_mm_equivalent_compares_diagonals() -> None:
    """24 mm on 4:3 is 71.6 x 56.8 degrees, not the 73.7 of 36 mm of film; 16:9 keeps the full width of 4:3."""
    assert angles_of_f35(24.0) == pytest.approx((71.6, 56.8), abs=0.05)
    assert angles_of_f35(24.0, 16 / 9)[0] == pytest.approx(71.6, abs=0.05)


def test_a_camera_is_read_from_one_line() -> None:
    """The option's text becomes a camera; anything else is refused with what was expected."""
    assert CameraModel.parse("hfov=71.6,vfov=56.8,gimbal=-90,ground=12") == CameraModel(71.6, 56.8, -90.0, None, 12.0)
    assert CameraModel.parse("f35=24,aspect=4:3").hfov_deg == pytest.approx(71.6, abs=0.05)
    for wrong in (
        "",
        "hfov",
        "hfov=x",
        "fov=3",
        "hfov=0",
        "hfov=200",
        "gimbal=-90",
        "f35=0",
        "f35=24,aspect=4:0",
        "hfov=nan",
    ):
        with pytest.raises(UsageError, match="camera"):
            CameraModel.parse(wrong)
