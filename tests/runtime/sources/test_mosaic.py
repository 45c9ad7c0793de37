"""Mosaics: every pixel of a large TIFF in exactly the right place, decoded piece by piece.

Covers: runtime/geotiff/georeference.py, runtime/geotiff/layout.py, runtime/geotiff/raster.py,
runtime/sources/extent.py, runtime/sources/jpeg.py.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.geotiff.raster import Raster
from overflight.runtime.sources import open_source
from overflight.runtime.sources.mosaic import Mosaic, _starts, is_mosaic
from overflight.runtime.sources.stills import Stills

cv2 = pytest.importorskip("cv2")
tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")
UTM = [
    (33550, 12, 3, (0.05, 0.05, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 4_000_000.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True),
]


@pytest.fixture(scope="module")
def ground() -> NDArray[np.uint8]:
    seeds = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    scene: NDArray[np.uint8] = cv2.resize(seeds, (1130, 870), interpolation=cv2.INTER_CUBIC)
    return scene


def assembled(path: Path, window: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mosaic = Mosaic(path, window)
    whole = np.zeros(shape, np.uint8)
    frames = list(mosaic.frames())
    mosaic.close()
    assert len(frames) == mosaic.count
    for frame in frames:
        place = frame.window
        assert place is not None
        assert frame.pixels.shape == (place.height, place.width, 3) == (window, window, 3)
        whole[place.top : place.top + window, place.left : place.left + window] = frame.pixels[:, :, ::-1]
    return whole


@pytest.mark.parametrize("window", [256, 300])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 7},
        {"tile": (256, 256)},
        {"tile": (128, 64), "bigtiff": True},
        {"tile": (256, 512), "compression": "zlib", "predictor": True},
        {"rowsperstrip": 16, "compression": "zlib"},
    ],
    ids=str,
)
def test_every_pixel_is_where_it_belongs(
    ground: NDArray[np.uint8], tmp_path: Path, options: dict[str, Any], window: int
) -> None:
    """Strips and tiles, plain and compressed, classic and large files."""
    tifffile.imwrite(tmp_path / "a.tif", ground, photometric="rgb", **options)
    np.testing.assert_array_equal(assembled(tmp_path / "a.tif", window, ground.shape), ground)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_what_libtiff_wrote_is_read(ground: NDArray[np.uint8], tmp_path: Path, compression: str) -> None:
    """A second writer, and Pillow's own decoding as the reference; two decoders of JPEG differ by rounding."""
    Image.fromarray(ground).save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(Image.open(tmp_path / "a.tif")).astype(int)
    got = assembled(tmp_path / "a.tif", 256, ground.shape)
    assert np.abs(got - expected).max() <= (3 if compression == "jpeg" else 0)


def test_grey_and_alpha_are_read(ground: NDArray[np.uint8], tmp_path: Path) -> None:
    """Grey becomes colour; where alpha is full, it changes nothing."""
    grey = ground[:, :, 0]
    tifffile.imwrite(tmp_path / "g.tif", grey, photometric="minisblack", tile=(256, 256), compression="zlib")
    np.testing.assert_array_equal(assembled(tmp_path / "g.tif", 256, ground.shape), np.dstack([grey] * 3))
    opaque = np.dstack([ground, np.full(grey.shape, 255, np.uint8)])
    options: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"], "tile": (256, 256)}
    tifffile.imwrite(tmp_path / "a.tif", opaque, **options)
    np.testing.assert_array_equal(assembled(tmp_path / "a.tif", 256, ground.shape), ground)


def test_a_window_knows_its_ground(ground: NDArray[np.uint8], tmp_path: Path) -> None:
    """Tie point and scale of the file, moved to the window's own corner; the name tells the place too."""
    tifffile.imwrite(tmp_path / "a.tif", ground, photometric="rgb", tile=(256, 256), extratags=UTM)
    with closing(Mosaic(tmp_path / "a.tif", 400)) as mosaic:
        frames = list(mosaic.frames())
    last = frames[-1].window
    assert last is not None
    assert (last.left, last.top, last.epsg) == (730, 470, 32633)
    assert last.transform == pytest.approx((500_036.5, 0.05, 0, 3_999_976.5, 0, -0.05))
    assert frames[-1].name == "a.tif@730,470"


@given(st.integers(1, 5000), st.integers(1, 1500))
def test_windows_cover_an_edge_without_a_gap(length: int, window: int) -> None:
    """And none reaches beyond it."""
    starts = _starts(length, window)
    covered = np.zeros(length, bool)
    for start in starts:
        assert 0 <= start <= max(0, length - window)
        covered[start : start + window] = True
    assert covered.all()
    assert starts == sorted(set(starts))


def test_only_a_large_tiff_is_read_in_windows(ground: NDArray[np.uint8], tmp_path: Path) -> None:
    """A small one is a still, and a window may be asked for."""
    tifffile.imwrite(tmp_path / "a.tif", ground, photometric="rgb")
    assert isinstance(open_source(str(tmp_path / "a.tif")), Stills)
    source = open_source(f"file://{tmp_path}/a.tif?window=256")
    assert isinstance(source, Mosaic)
    assert source.count == 5 * 4
    source.close()
    (tmp_path / "text.tif").write_text("hello")
    assert not is_mosaic(tmp_path / "text.tif")


def test_a_torn_mosaic_gives_what_it_has(ground: NDArray[np.uint8], tmp_path: Path) -> None:
    """What cannot be decoded is counted, and said at the end."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ground, photometric="rgb", tile=(256, 256), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[6], tiff.pages[0].databytecounts[6]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + length] = b"\xff" * length
    path.write_bytes(raw)
    seen = []
    with closing(Mosaic(path, 256)) as mosaic, pytest.raises(SourceError, match="1 of 20 windows cannot be decoded"):
        for frame in mosaic.frames():
            seen.append(frame)  # noqa: PERF402 - what came before the failure counts
    assert len(seen) == 19
    assert [frame.dropped for frame in seen if frame.dropped] == [{"unreadable": 1}]


def test_bands_that_are_no_colours_are_chosen_by_name(tmp_path: Path) -> None:
    """A multispectral file asks which bands to show, and shows those that are chosen, stretched as was asked."""
    bands = np.stack([np.full((600, 600), value, np.uint16) for value in (0, 1000, 2000, 3000, 4000)])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="separate")
    with pytest.raises(SourceError, match=r"5 bands, and it does not say .*\?bands=3,2,1"):
        open_source(f"file://{path}?window=256")
    with closing(open_source(f"file://{path}?window=256&bands=4,3,2&stretch=0,4000")) as mosaic:
        frame = next(iter(mosaic.frames()))
    assert frame.pixels[0, 0].tolist() == [64, 128, 191]  # blue, green, red
    assert frame.window is not None
    assert (frame.window.bands, frame.window.stretch) == ((4, 3, 2), (0.0, 4000.0))
    for query in ("bands=9,1,2", "bands=1,2", "stretch=5,1", "window=0", "band=1", "bands=a,b,c"):
        with pytest.raises(UsageError):
            open_source(f"file://{path}?window=100&{query}" if "window" not in query else f"file://{path}?{query}")


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_number_is_read_as_it_was_written(
    tmp_path: Path, kind: str, compression: str | None, predictor: bool, byteorder: str
) -> None:
    """Types, predictors and byte orders, against the array that tifffile wrote."""
    if predictor and (
        compression is None or kind == "float32"
    ):  # tifffile writes that predictor with imagecodecs alone
        pytest.skip("not written by tifffile")
    array = (np.random.default_rng(0).normal(0, 500, (70, 50, 3)).cumsum(axis=1)).clip(0, 30000).astype(kind)
    options: dict[str, Any] = {"photometric": "rgb", "compression": compression, "predictor": predictor or None}
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(32, 32), byteorder=byteorder, metadata=None, **options)
    raster = Raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(raster.read(3, 5, 68, 49, (2, 0)), array[3:68, 5:49, [2, 0]])
    raster.close()


@pytest.mark.parametrize("junk", [bytes(64), b"\xff\xd7" * 256])
def test_damaged_jpeg_is_not_painted_over(ground: NDArray[np.uint8], tmp_path: Path, junk: bytes) -> None:
    """A hole in the middle of a piece's data: OpenCV shows what it can, the window is named instead."""
    pytest.importorskip("simplejpeg")
    Image.fromarray(ground).save(tmp_path / "a.tif", compression="jpeg")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        place, length = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
    middle = place + length // 3
    raw[middle : middle + len(junk)] = junk
    (tmp_path / "a.tif").write_bytes(raw)
    with closing(Mosaic(tmp_path / "a.tif", 256)) as mosaic, pytest.raises(SourceError, match="cannot be decoded"):
        list(mosaic.frames())


def test_damaged_lzw_is_not_shown_as_black(ground: NDArray[np.uint8], tmp_path: Path) -> None:
    """libtiff fills what it cannot decode; the window is named instead."""
    Image.fromarray(ground).save(tmp_path / "a.tif", compression="tiff_lzw")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 400] = bytes(range(200)) * 2
    (tmp_path / "a.tif").write_bytes(raw)
    mosaic = Mosaic(tmp_path / "a.tif", 256)
    with pytest.raises(SourceError, match="windows cannot be decoded"):
        list(mosaic.frames())
    mosaic.close()


@pytest.mark.slow
def test_a_picture_of_400_megapixels_stays_small_in_memory(tmp_path: Path) -> None:
    """20,000 x 20,000 px are 1.2 GB decoded; the reader's peak is a small part of that."""
    tile = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    path = tmp_path / "large.tif"
    side = 20_000
    tiles = itertools.repeat(zlib.compress(tile.tobytes(), 1), (-(-side // 512)) ** 2)
    options: dict[str, Any] = {"photometric": "rgb", "tile": (512, 512), "compression": "zlib"}
    tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, **options)
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom overflight.runtime.sources.mosaic import Mosaic\nimport cv2\n"
        "status = Path('/proc/self/status')\n"
        "peak = lambda: int(re.search('VmHWM:.*?([0-9]+)', status.read_text())[1]) // 1024\nbefore = peak()\n"
        "count = sum(1 for _ in Mosaic(Path(sys.argv[1])).frames())\nprint(count, before, peak())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    count, before_mb, peak_mb = (int(word) for word in run.stdout.split())
    print(f"{count} windows of {path.stat().st_size / 1e6:.0f} MB: peak {peak_mb} MB, {before_mb} MB before")
    assert count == 400
    assert peak_mb - before_mb < 200
