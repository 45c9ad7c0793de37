"""Places of tiles: a projective image of the picture on flat ground."""

from __future__ import annotations

import pytest

from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.footprint import locate
from overflight.runtime.pose.record import Attitude, Pose
from overflight.station.archive.places import tile_places


@pytest.mark.parametrize("pitch_deg", [-90.0, -55.0])
def test_a_tile_lies_where_its_own_rays_meet_the_ground(pitch_deg: float) -> None:
    """The four corners of the whole place every tile as the footprint of the tile itself does, within 2 cm."""
    pose = Pose(0, 47.0, 8.0, height_m=60.0, height_above="ground", gimbal=Attitude(30.0, pitch_deg, 0.0))
    camera = CameraModel(70.0)
    whole = locate(pose, camera, (1600, 900))
    assert whole is not None
    for number, place in enumerate(tile_places(whole, 2, 3)):
        row, column = divmod(number, 3)
        own = locate(pose, camera, (1600, 900), (column / 3, row / 2, (column + 1) / 3, (row + 1) / 2))
        assert place is not None
        assert own is not None
        for mine, theirs in zip(place.footprint, own.footprint, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-7)
        assert (place.lat_deg, place.lon_deg) == pytest.approx((own.lat_deg, own.lon_deg), abs=2e-7)


def test_without_four_corners_a_tile_has_the_frames_place() -> None:
    """Nothing is made up where the footprint was cut at the horizon, or is not known."""
    assert tile_places(None, 2, 2) == [None] * 4
