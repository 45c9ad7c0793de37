"""Makes the GeoTIFF corpus again: broken directories, bands, codings and every place of a georeference.

    python tests/corpus/geotiff/make.py [FOLDER]

Nothing is fetched. Each file is 48 x 40 pixels; what it must give stands in expected.json.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

HERE = Path(__file__).parent
WIDTH, HEIGHT = 48, 40
UTM_KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
SCALE, TIE = (33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 4_000_000.0, 0.0), True)
TFW = "0.5\n0.0\n0.0\n-0.5\n500000.25\n3999999.75\n"
AUX = (
    '<PAMDataset><SRS dataAxisToSRSAxisMapping="1,2">PROJCS[&quot;WGS 84 / UTM zone 33N&quot;,'
    "AUTHORITY[&quot;EPSG&quot;,&quot;32633&quot;]]</SRS>\n"
    "<GeoTransform> 5.0e+05, 2.5e-01,  0.0,  4.0e+06,  0.0, -2.5e-01</GeoTransform></PAMDataset>"
)


def scene(kind: str = "uint8", bands: int = 3) -> NDArray[Any]:
    """Return a picture of slopes that no two bands share, ``[height, width, bands]``."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    most = {"uint8": 250, "uint16": 3000, "int16": 3000, "float32": 3000}[kind]
    values = np.dstack([(x * (band + 1) + y * 2) % 250 / 250 * most for band in range(bands)])
    return values.astype(kind)


def keys(*numbers: int) -> tuple[int, int, int, tuple[int, ...], bool]:
    return 34735, 3, len(numbers), numbers, True


def without(raw: bytes, tag: int) -> bytes:
    """Return a little-endian TIFF with a tag renamed to one that nobody knows."""
    return edited(raw, tag, 0, struct.pack("<H", 65000))


def edited(raw: bytes, tag: int, place: int, value: bytes) -> bytes:
    """Return a little-endian TIFF with bytes of a tag's entry overwritten: 0 its code, 4 its count, 8 its value."""
    (start,) = struct.unpack_from("<I", raw, 4)
    (count,) = struct.unpack_from("<H", raw, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", raw, entry)[0] == tag:
            return raw[: entry + place] + value + raw[entry + place + len(value) :]
    raise ValueError(f"no tag {tag}")


def write(path: Path, picture: NDArray[Any], *tags: tuple[Any, ...], **options: Any) -> bytes:
    options = {"photometric": "rgb", "metadata": None, "software": False, "rowsperstrip": 8} | options
    if "tile" in options:
        del options["rowsperstrip"]
    tifffile.imwrite(path, picture, extratags=list(tags), **options)
    return path.read_bytes()


def broken(folder: Path) -> None:
    """Directories that a torn copy or a careless writer leaves."""
    path = folder / "deflate.tif"
    raw = write(path, scene(), compression="zlib")
    tiled = write(path, scene(), tile=(16, 16), compression="zlib")
    plain = write(path, scene(), rowsperstrip=HEIGHT)
    path.unlink()
    for name, content in {
        "no-counts.tif": without(raw, 279),
        "no-offsets.tif": without(raw, 273),
        "few-counts.tif": edited(raw, 279, 4, struct.pack("<I", 2)),
        "few-offsets.tif": edited(raw, 273, 4, struct.pack("<I", 3)),
        "rows-per-strip-0.tif": edited(raw, 278, 8, struct.pack("<I", 0)),
        "tile-width-0.tif": edited(tiled, 322, 8, struct.pack("<I", 0)),
        "tile-height-0.tif": edited(tiled, 323, 8, struct.pack("<I", 0)),
        "planar-7.tif": edited(raw, 284, 8, struct.pack("<H", 7)),
        "bits-12.tif": edited(raw, 258, 4, struct.pack("<II", 1, 12)),
        "no-width.tif": without(raw, 256),
        "lzw-that-is-not.tif": edited(raw, 259, 8, struct.pack("<H", 5)),
        "offset-behind-the-end.tif": edited(plain, 273, 8, struct.pack("<I", 1 << 30)),
        "length-of-4-gb.tif": edited(plain, 279, 8, struct.pack("<I", (1 << 32) - 1)),
        "plain-without-counts.tif": without(plain, 279),
        "zstd.tif": edited(raw, 259, 8, struct.pack("<H", 50000)),
        "lerc.tif": edited(raw, 259, 8, struct.pack("<H", 34887)),
        "compression-unknown.tif": edited(raw, 259, 8, struct.pack("<H", 4711)),
    }.items():
        (folder / name).write_bytes(content)


def bands(folder: Path) -> None:
    """Bands, their order, their types and what the file says of them."""
    write(folder / "rgb.tif", scene())
    write(folder / "band-interleaved.tif", np.moveaxis(scene(), 2, 0), planarconfig="separate", compression="zlib")
    write(folder / "uint16.tif", scene("uint16"), compression="zlib", predictor=True)
    write(folder / "uint16-big-endian.tif", scene("uint16"), byteorder=">")
    write(folder / "int16-grey.tif", scene("int16", 1)[:, :, 0] - 500, photometric="minisblack")
    nodata = (42113, 2, 0, "-9999", True)
    holes = scene("float32", 1)[:, :, 0]
    holes[:10] = -9999
    write(folder / "float32-nodata.tif", holes, nodata, photometric="minisblack", compression="zlib")
    write(folder / "white-is-zero.tif", scene("uint8", 1)[:, :, 0], photometric="miniswhite")
    five = np.moveaxis(scene("uint16", 5), 2, 0)
    separate: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate"}
    write(folder / "five-bands.tif", five, **separate)
    named = "".join(
        f'<Item name="COLORINTERP" sample="{i}" role="colorinterp">{colour}</Item>'
        for i, colour in enumerate(("Blue", "Green", "Red"))
    )
    write(
        folder / "five-bands-named.tif", five, (42112, 2, 0, f"<GDALMetadata>{named}</GDALMetadata>", True), **separate
    )
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1:4] = np.array([[65535, 0, 0], [0, 65535, 0], [0, 0, 65535]])
    write(folder / "palette.tif", scene("uint8", 1)[:, :, 0] % 4, photometric="palette", colormap=colours)
    opaque = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    write(folder / "alpha.tif", opaque, extrasamples=["unassalpha"])


def georeferences(folder: Path) -> None:
    """Every place that GDAL reads a georeference from."""

    def grey(name: str, *tags: tuple[Any, ...]) -> None:
        write(folder / name, scene("uint8", 1)[:, :, 0], *tags, photometric="minisblack", compression="zlib")

    matrix = (34264, 12, 16, (0.3, 0.4, 0, 500_000, 0.4, -0.3, 0, 4_000_000, 0, 0, 0, 0, 0, 0, 0, 1), True)
    point = keys(1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32633)
    degrees = keys(1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326)
    degree_scale, degree_tie = (33550, 12, 3, (1e-5, 1e-5, 0.0), True), (33922, 12, 6, (0, 0, 0, 7.0, 46.0, 0), True)
    grey("geo-scale.tif", SCALE, TIE, keys(*UTM_KEYS))
    grey(
        "geo-tie-inside.tif",
        SCALE,
        (33922, 12, 6, (10.0, 20.0, 0.0, 500_005.0, 3_999_990.0, 0.0), True),
        keys(*UTM_KEYS),
    )
    grey("geo-pixel-is-point.tif", SCALE, TIE, point)
    grey("geo-matrix.tif", matrix, keys(*UTM_KEYS))
    grey("geo-matrix-point.tif", matrix, point)
    grey("geo-scale-negative.tif", (33550, 12, 3, (0.5, -0.5, 0.0), True), TIE, keys(*UTM_KEYS))
    grey("geo-scale-nan.tif", (33550, 12, 3, (float("nan"), 0.5, 0.0), True), TIE, keys(*UTM_KEYS))
    grey("geo-scale-zero.tif", (33550, 12, 3, (0.0, 0.0, 0.0), True), TIE, keys(*UTM_KEYS))
    grey("geo-degrees.tif", degree_scale, degree_tie, degrees)
    grey("geo-mercator.tif", SCALE, (33922, 12, 6, (0, 0, 0, 800_000.0, 5_780_000.0, 0), True),
         keys(1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 3857))  # fmt: skip
    grey("geo-feet.tif", SCALE, TIE, keys(1, 1, 0, 3, 1024, 0, 1, 1, 3072, 0, 1, 2263, 3076, 0, 1, 9003))
    grey("geo-utm-by-projection.tif", SCALE, TIE,
         keys(1, 1, 0, 4, 1024, 0, 1, 1, 2048, 0, 1, 4326, 3072, 0, 1, 32767, 3074, 0, 1, 16133))  # fmt: skip
    grey("geo-utm-by-citation.tif", SCALE, TIE, (34737, 2, 0, "WGS 84 / UTM zone 33N|", True),
         keys(1, 1, 0, 3, 1024, 0, 1, 1, 3072, 0, 1, 32767, 1026, 34737, 22, 0))  # fmt: skip
    grey("geo-model-geographic.tif", degree_scale, degree_tie,
         keys(1, 1, 0, 3, 1024, 0, 1, 2, 2048, 0, 1, 4326, 3072, 0, 1, 32633))  # fmt: skip
    ties = [(x, y, 0, 500_000 + 0.5 * x, 4_000_000 - 0.5 * y, 0) for x, y in ((0, 0), (48, 0), (0, 40), (48, 40))]
    grey("geo-control-points.tif", (33922, 12, 24, tuple(float(v) for tie in ties for v in tie), True), keys(*UTM_KEYS))
    grey("geo-none.tif")
    for name, ending, content in (
        ("geo-world", ".tfw", TFW), ("geo-world-capital", ".TFW", TFW), ("geo-wld", ".wld", TFW),
        ("geo-aux", ".tif.aux.xml", AUX),
    ):  # fmt: skip
        grey(f"{name}.tif", *((SCALE, TIE) if name == "geo-aux" else ()))
        (folder / f"{name}{ending}").write_text(content)
    grey("geo-tags-before-world.tif", SCALE, TIE, keys(*UTM_KEYS))
    (folder / "geo-tags-before-world.tfw").write_text("9\n0\n0\n-9\n1\n1\n")


def main(folder: Path) -> None:
    """Write the corpus."""
    broken(folder)
    bands(folder)
    georeferences(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
