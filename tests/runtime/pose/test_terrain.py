"""Terrain: heights against GDAL's interpolation and pyproj's UTM, rays against slopes whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.geodesy import distance_m, metres_per_degree, utm
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.footprint import GROUND_SLOPE, locate
from overflight.runtime.pose.geotag import Geotagger
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.terrain import Terrain

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("cv2")

LAT, LON, STEP = 46.0, 7.0, 1 / 3600  # SRTM's spacing
COUNT = 241
CAMERA, SIZE = CameraModel(71.6, 56.8), (4000, 3000)


Open = Callable[[object], Terrain]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Return what opens a model and closes it after the test."""
    with ExitStack() as stack:

        def open_terrain(address: object) -> Terrain:
            terrain = Terrain.open(str(address))
            stack.callback(terrain.close)
            return terrain

        yield open_terrain


def model(path: Path, heights: NDArray[Any], **options: Any) -> Path:
    """Write a model in degrees whose middle is at 46, 7: pixel is point, as SRTM is."""
    half = COUNT // 2 * STEP
    tags = [
        (33550, 12, 3, (STEP, STEP, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, LON - half, LAT + half, 0.0), True),
        (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326), True),
        (42113, 2, 0, "-32768", True),
    ]
    options = {"photometric": "minisblack", "compression": "zlib", "rowsperstrip": 16, "metadata": None} | options
    tifffile.imwrite(path, heights, extratags=tags, **options)
    return path


def metres() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return how far north and east of the middle each point of the model lies."""
    places = (np.arange(COUNT) - COUNT // 2) * STEP
    north_m, east_m = metres_per_degree(LAT)
    north, east = np.meshgrid(-places * north_m, places * east_m, indexing="ij")
    return north, east


def rising_north(path: Path, slope: float, base: float = 500.0) -> Path:
    north, _ = metres()
    return model(path, (base + slope * north).astype(np.float32))


def pose(pitch: float, *, yaw: float = 0.0, height: float | None = 100.0, **more: Any) -> Pose:
    return Pose(0, LAT, LON, height, gimbal=Attitude(yaw, pitch, 0.0), h_acc_m=1.0, **more)


@pytest.mark.parametrize("slope", [-0.3, -0.1, 0.0, 0.1, 0.4])
@pytest.mark.parametrize("pitch", [-90.0, -60.0, -30.0])
def test_a_ray_meets_a_slope_where_it_must(tmp_path: Path, slope: float, pitch: float, opened: Open) -> None:
    """Looking north from 100 m above the ground below: h / (tan(pitch) + slope) away, within 0.2 %."""
    terrain = opened(rising_north(tmp_path / "dem.tif", slope))
    place = locate(pose(pitch, height_above="ground"), CAMERA, SIZE, terrain=terrain)
    assert place is not None
    assert place.ground == "terrain"
    away_m = distance_m((LAT, LON), (place.lat_deg, place.lon_deg))
    expected_m = 0.0 if pitch == -90 else 100.0 / (math.tan(math.radians(-pitch)) + slope)
    if math.tan(math.radians(-pitch)) + slope > 0.05:
        assert away_m == pytest.approx(expected_m, rel=2e-3, abs=0.05)


def test_a_ray_stops_at_the_first_hill(tmp_path: Path, opened: Open) -> None:
    """Two ridges to the north: the nearer one is seen, not what lies behind it."""
    north, _ = metres()
    ridges = 500 + 80 * np.exp(-(((north - 200) / 40) ** 2)) + 80 * np.exp(-(((north - 500) / 40) ** 2))
    terrain = opened(model(tmp_path / "dem.tif", ridges.astype(np.float32)))
    place = locate(pose(-15, height_above="ground"), CAMERA, SIZE, (0.45, 0.45, 0.55, 0.55), terrain=terrain)
    flat = locate(pose(-15, height_above="ground"), CAMERA, SIZE, (0.45, 0.45, 0.55, 0.55))
    assert place is not None
    assert flat is not None
    assert 120 < distance_m((LAT, LON), (place.lat_deg, place.lon_deg)) < 200
    assert distance_m((LAT, LON), (flat.lat_deg, flat.lon_deg)) == pytest.approx(
        100 / math.tan(math.radians(15)), rel=1e-3
    )


def test_without_a_model_the_radius_holds_a_slope(tmp_path: Path, opened: Open) -> None:
    """Flat ground is said, and the true place on a slope of a tenth lies within the stated radius."""
    terrain = opened(rising_north(tmp_path / "dem.tif", GROUND_SLOPE))
    for pitch in (-70.0, -45.0, -30.0):
        flat = locate(pose(pitch), CAMERA, SIZE)
        true = locate(pose(pitch, height_above="ground"), CAMERA, SIZE, terrain=terrain)
        assert flat is not None
        assert true is not None
        assert (flat.ground, true.ground) == ("flat", "terrain")
        assert distance_m((flat.lat_deg, flat.lon_deg), (true.lat_deg, true.lon_deg)) < flat.error_m
        assert true.error_m < flat.error_m or pitch == -70.0


def test_where_the_camera_s_height_comes_from(tmp_path: Path, opened: Open) -> None:
    """Ground below, take-off point, altitude, or as if it took off from below: each with its error."""
    path = rising_north(tmp_path / "dem.tif", 0.5)
    north_m, _ = metres_per_degree(LAT)
    here, start = opened(path), opened(f"{path}?takeoff={LAT - 400 / north_m},{LON}")
    assert here.height_m(LAT, LON) == pytest.approx(500, abs=0.1)
    assert start.takeoff_m == pytest.approx(300, abs=0.3)
    cases = [
        (here, pose(-90, height_above="ground"), 600),
        (start, pose(-90, height=300.0), 600),
        (here, pose(-90, altitude_m=640.0), 640),
        (here, pose(-90, height=None, altitude_m=640.0), 640),
        (here, pose(-90), 600),
        (here, pose(-90, height_above="ground", ground_m=520.0), 620),
    ]
    for terrain, seen, eye_m in cases:
        found = terrain.eye_m(seen, 0.0)
        assert found is not None
        assert found[0] == pytest.approx(eye_m, abs=0.5)


def test_a_hole_and_the_edge_fall_back_to_flat_ground(tmp_path: Path, opened: Open) -> None:
    """Where the model has no height the place says that flat ground was assumed."""
    heights = np.full((COUNT, COUNT), 500, np.int16)
    heights[:100] = -32768
    terrain = opened(model(tmp_path / "dem.tif", heights))
    over, into = (locate(pose(pitch, height_above="ground"), CAMERA, SIZE, terrain=terrain) for pitch in (-90.0, -10.0))
    assert over is not None
    assert into is not None
    assert (over.ground, into.ground) == ("terrain", "flat")
    assert terrain.height_m(LAT + 1, LON) is None
    assert locate(Pose(0, LAT + 1, LON, 100.0, gimbal=Attitude(0, -90, 0)), CAMERA, SIZE, terrain=terrain) is not None


@given(st.floats(-79, 83), st.integers(1, 60), st.floats(-3.5, 3.5))
def test_utm_agrees_with_pyproj(lat: float, zone: int, off: float) -> None:
    """Within a millimetre, north and south of the equator."""
    pyproj = pytest.importorskip("pyproj", reason="pyproj is the independent projection")
    epsg = (32600 if lat >= 0 else 32700) + zone
    lon = zone * 6 - 183 + off
    expected = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    got = utm(np.array([lat]), np.array([lon]), epsg)
    assert (got[0][0], got[1][0]) == pytest.approx(expected, abs=1e-3)


def test_a_model_in_utm_is_read(tmp_path: Path, opened: Open) -> None:
    """A lidar model in metres: the same slope, the same answer."""
    east, north = (float(v[0]) for v in utm(np.array([LAT]), np.array([LON]), 32632))
    rows = np.arange(400)[:, None] * -2.0 + 400
    tags = [
        (33550, 12, 3, (2.0, 2.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, east - 400, north + 400, 0.0), True),
        (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632), True),
    ]
    heights = np.repeat(500 + 0.1 * (rows - 1), 400, axis=1).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "utm.tif", heights, extratags=tags, photometric="minisblack", tile=(64, 64), metadata=None
    )
    terrain = opened(tmp_path / "utm.tif")
    assert terrain.height_m(LAT, LON) == pytest.approx(500, abs=0.1)
    place = locate(pose(-45, height_above="ground"), CAMERA, SIZE, terrain=terrain)
    assert place is not None
    assert distance_m((LAT, LON), (place.lat_deg, place.lon_deg)) == pytest.approx(100 / 1.1, rel=0.01)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """In one line, with the command that helps."""
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, np.zeros((9, 9), np.int16), photometric="minisblack", metadata=None)
    with pytest.raises(SourceError, match=r"no georeference; expected degrees or UTM on WGS 84: gdalwarp"):
        Terrain.open(str(plain))
    with pytest.raises(MissingError, match="no such file"):
        Terrain.open(str(tmp_path / "none.tif"))
    good = rising_north(tmp_path / "dem.tif", 0.0)
    for query in ("takeoff=1", "takeoff=x,y", "takeof=46,7", "takeoff=46,7,8"):
        with pytest.raises(UsageError, match=r"expected DEM\.tif"):
            Terrain.open(f"{good}?{query}")
    with pytest.raises(UsageError, match="not on this model"):
        Terrain.open(f"{good}?takeoff=10,10")


def test_a_track_that_begins_on_the_ground_gives_the_take_off_point(tmp_path: Path) -> None:
    """A flight up a slope: the height above take-off counts from where the track began."""
    path = rising_north(tmp_path / "dem.tif", 0.5)
    north_m, _ = metres_per_degree(LAT)
    csv = tmp_path / "t.csv"
    csv.write_text(
        "media_ns,lat,lon,rel_alt,gimbal_yaw,gimbal_pitch\n"
        f"0,{LAT - 400 / north_m},{LON},0.3,0,-90\n1000000000,{LAT},{LON},300,0,-90\n"
    )
    where = Geotagger.open(str(csv), "hfov=71.6", terrain=str(path))
    place = where.locate(Frame(np.zeros((9, 16, 3), np.uint8), 0, 0, media_ns=1_000_000_000)).place
    where.close()
    assert place is not None
    assert place.gsd_m is not None
    assert place.gsd_m * 16 == pytest.approx(2 * 100 * math.tan(math.radians(35.8)), rel=0.01)
