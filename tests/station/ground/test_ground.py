"""Pictures of the ground: windows, what is missing, scale and place, for stills and mosaics of many kinds.

Covers: station/ground/picture.py station/ground/place.py station/ground/tiles.py station/ground/towers.py
station/degrees.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.runtime.errors import SourceError, UsageError
from overflight.station.ground import open_picture
from overflight.station.ground.place import Placer, metres_between
from overflight.station.ground.tiles import filled, read_tiles, tile_edges, usual_tile_px

pytest.importorskip("cv2")
pytest.importorskip("tifffile")


def noise(height: int = 64, width: int = 96, bands: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(1, 255, (height, width, bands), np.uint8)


def mean_colour(pictures: Any) -> Any:
    means = np.array([picture.reshape(-1, 3).mean(axis=0) - 100 for picture in pictures], np.float32)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)


def test_a_utm_mosaic_knows_its_scale_and_its_degrees(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    """pyproj, called directly, agrees with the placed corners."""
    import pyproj

    picture = opened(geotiff(tmp_path / "a.tif", noise()))
    assert picture.ground is not None
    assert picture.ground.gsd_m == pytest.approx(0.5)
    ring = Placer(picture).ring(0, 0, 96, 64)
    expected = pyproj.Transformer.from_crs(32611, 4326, always_xy=True).transform(256_000.0, 4_107_000.0 - 32.0)
    assert ring[0] == pytest.approx(expected, abs=1e-9)
    twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    assert twice > 0  # counter-clockwise


def test_a_mosaic_in_degrees_needs_no_conversion(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    picture = opened(geotiff(tmp_path / "a.tif", noise(), epsg=4326, gsd=1e-5, at=(8.5, 47.4)))
    assert Placer(picture).ring(0, 0, 96, 64)[3] == pytest.approx((8.5, 47.4))
    assert picture.ground is not None
    assert 1.0 < picture.ground.gsd_m < 1.2


@pytest.mark.parametrize(
    ("kind", "share"),
    [("alpha", 0.5), ("nodata 0", 0.5), ("nodata 255", 0.5), ("black border", 0.5), ("float nan", 0.5), ("whole", 1.0)],
)
def test_the_border_of_a_mosaic_is_missing(tmp_path: Path, geotiff: Any, opened: Any, kind: str, share: float) -> None:
    """ODM leaves alpha, GDAL a value, others plain black; floats use NaN."""
    pixels, nodata = noise(), None
    match kind:
        case "alpha":
            pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
            pixels[:32, :, 3] = 0
        case "nodata 0" | "nodata 255":
            nodata = kind.split()[1]
            pixels[:32] = int(nodata)
        case "black border":
            pixels[:32] = 0
        case "float nan":
            pixels = pixels.astype(np.float32)
            pixels[:32] = np.nan
    more = {"extrasamples": ["unassalpha"]} if kind == "alpha" else {}
    picture = opened(geotiff(tmp_path / "a.tif", pixels, nodata=nodata, **more))
    _, known = picture.read(0, 0, 64, 96)
    assert known.mean() == pytest.approx(share, abs=0.001)
    if share < 1:
        assert not known[:32].any()


def test_sixteen_bits_are_stretched_and_noted(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    pixels = (noise().astype(np.uint16) * 11) + 300
    picture = opened(geotiff(tmp_path / "a.tif", pixels))
    shown, _ = picture.read(0, 0, 64, 96)
    assert shown.dtype == np.uint8
    assert shown.max() > 240
    assert "16-bit" in picture.notes[0]


def test_transparent_parts_of_a_png_are_missing(tmp_path: Path) -> None:
    import cv2

    pixels = noise(40, 40, 4)
    pixels[:, :, 3] = 255
    pixels[:, :10, 3] = 0
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    _, known = open_picture(tmp_path / "a.png").read(0, 0, 40, 40)
    assert known.mean() == pytest.approx(0.75)
    pixels[:, :, 3] = 0
    cv2.imwrite(str(tmp_path / "b.png"), pixels)
    with pytest.raises(SourceError, match="transparent"):
        open_picture(tmp_path / "b.png")


def test_a_still_without_tags_has_no_scale_unless_it_is_given(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), noise())
    assert open_picture(tmp_path / "a.png").ground is None
    given = open_picture(tmp_path / "a.png", gsd_m=0.25).ground
    assert given is not None
    assert (given.gsd_m, given.origin) == (0.25, "given")
    with pytest.raises(UsageError, match="--gsd"):
        open_picture(tmp_path / "a.png", gsd_m=-1)


def test_tiles_cover_the_picture_once_and_leave_out_what_is_missing(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    pixels = noise(100, 150)
    pixels[:50, :50] = 0
    picture = opened(geotiff(tmp_path / "a.tif", pixels))
    tiles = read_tiles(picture, mean_colour, 32, 50)
    assert (tiles.rows, tiles.columns, tiles.missing, len(tiles.tiles)) == (2, 3, 1, 5)
    assert sum(tile.width * tile.height for tile in tiles.tiles) == 100 * 150 - 50 * 50
    assert all(tile.area_m2 == pytest.approx(50 * 50 * 0.25) for tile in tiles.tiles)
    with pytest.raises(UsageError, match="tiles"):
        read_tiles(opened(geotiff(tmp_path / "b.tif", noise(600, 600))), mean_colour, 32, 2)


def test_edges_and_sizes() -> None:
    assert tile_edges(100, 50) == [0, 50, 100]
    assert tile_edges(10, 50) == [0, 10]
    assert usual_tile_px(150, 150, 140) == 70
    assert usual_tile_px(20_000, 30_000, 140) == 280


def test_missing_pixels_take_the_mean_colour() -> None:
    pixels = np.full((4, 4, 3), 200, np.uint8)
    pixels[:2] = 0
    known = np.zeros((4, 4), bool)
    known[2:] = True
    assert (filled(pixels, known) == 200).all()


def test_metres_between_agrees_with_the_geodesic() -> None:
    import pyproj

    east, north = metres_between(np.array([8.51]), np.array([47.41]), (8.5, 47.4))
    _, _, metres = pyproj.Geod(ellps="WGS84").inv(8.5, 47.4, 8.51, 47.41)
    assert np.hypot(east[0], north[0]) == pytest.approx(metres, rel=2e-4)


def test_an_overview_is_bounded(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    picture = opened(geotiff(tmp_path / "a.tif", noise(300, 500)))
    pixels, known = picture.overview(100)
    assert pixels.shape == (60, 100, 3)
    assert known.all()
