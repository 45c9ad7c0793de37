"""How a picture lies in a TIFF file: its pieces, their coding and their bands, checked before anything is decoded."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import SourceError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN, JPEG, DEFLATE = 1, 7, frozenset({8, 32946})
BY_LIBTIFF = frozenset({5, JPEG, 32773})  # LZW, JPEG, PackBits: OpenCV's libtiff decodes them
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
MOST_SEGMENT_BYTES = 256 << 20
MOST_SEGMENTS = 4_000_000
_NAMES = {
    JPEG: "JPEG in 4 bands or 12 bits",
    32946: "Deflate", 34925: "LZMA", 50000: "ZSTD", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 34712: "JPEG 2000",
    33003: "JPEG 2000", 33005: "JPEG 2000", 6: "old JPEG", 34676: "SGI Log", 3: "fax", 4: "fax", 2: "fax",
}  # fmt: skip
_KEPT_TAGS = (266, 284, 338, 347, 530, 532)  # what libtiff needs besides the sizes: fill order, JPEG tables…
_ROWS = 64  # of an uncompressed file read at a time
_KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat -> numpy's letter


@dataclass(frozen=True)
class Layout:
    """The pieces of one picture: ``across`` by ``down`` tiles or strips of one size, for each plane.

    ``samples`` are the bands in one piece: all of them, or one where the bands lie in ``planes`` of their own.
    """

    name: str
    width: int
    height: int
    segment_width: int
    segment_height: int
    bands: int
    planes: int
    compression: int
    predictor: int
    photometric: int
    dtype: np.dtype[Any]  # in the file's byte order
    alpha: int | None  # which band says where there is no picture
    nodata: float | None
    palette: tuple[int, ...] | None
    roles: tuple[str, ...]  # what GDAL's metadata says each band is
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    tiled: bool
    tags: tuple[tuple[int, int, bytes], ...]  # (code, type, value) as a classic TIFF file holds them

    @property
    def across(self) -> int:
        """Pieces next to each other."""
        return -(-self.width // self.segment_width)

    @property
    def down(self) -> int:
        """Pieces below each other."""
        return -(-self.height // self.segment_height)

    @property
    def samples(self) -> int:
        """Bands in one piece."""
        return self.bands if self.planes == 1 else 1

    def rows(self, index: int) -> int:
        """Return the rows of one piece; the last strip may have fewer."""
        row = index % (self.across * self.down) // self.across
        return self.segment_height if self.tiled else min(self.segment_height, self.height - row * self.segment_height)


def open_tiff(path: Path) -> Any:
    """Open a TIFF file's structure. Raises SourceError where it cannot be read."""
    try:
        import tifffile
    except ImportError as error:
        raise missing_extra("tifffile", "cpu") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it notices is refused by name below
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # a torn header fails in the library's own ways: struct, index, key, its own family
        raise SourceError(f"{path}: not a TIFF file that can be read ({error}); copy it again") from error
    try:
        empty = not len(tiff.pages) or tiff.pages[0].imagewidth < 1 or tiff.pages[0].imagelength < 1
    except Exception as error:
        tiff.close()
        raise SourceError(f"{path}: its directory is damaged ({error}); copy it again") from error
    if empty:
        tiff.close()
        raise SourceError(f"{path}: a TIFF file without a picture; copy it again")
    return tiff


def read_layout(page: Any, name: str) -> Layout:
    """Take the layout of a page of tifffile's. Raises SourceError for a broken directory or an unknown coding."""
    width, height = int(page.imagewidth), int(page.imagelength)
    tiled = any(page.tags.valueof(code) is not None for code in (322, 323, 324))
    bands, dtype = int(page.samplesperpixel), _dtype(page, name)
    compression, planar = int(page.compression), int(_tag(page, 284, 1))
    if planar not in {1, 2}:
        raise SourceError(f"{name}: PlanarConfiguration {planar}, expected 1 or 2; copy it again")
    planes = bands if planar == 2 and bands > 1 else 1
    segment_width, segment_height = _segment_size(page, name, tiled)
    samples = bands if planes == 1 else 1
    across, down = -(-width // segment_width), -(-height // segment_height)
    offsets, lengths = _places(page, name, across * down * planes, tiled)
    row_bytes = segment_width * samples * dtype.itemsize
    if compression == PLAIN and not lengths and len(offsets) == 1:
        lengths = (row_bytes * height,)  # the only form in which the lengths follow from the rest
    if len(lengths) < len(offsets):
        raise SourceError(
            f"{name}: its directory gives the lengths of {len(lengths)} of {len(offsets)} pieces; copy it again, or "
            "write the mosaic again with the program that made it"
        )
    if not tiled and planes == 1 and compression == PLAIN and _one_run(offsets, lengths, row_bytes * height):
        size = page.parent.filehandle.size
        if offsets[0] + row_bytes * height > size or height > _ROWS * MOST_SEGMENTS:
            raise SourceError(f"{name}: {width} x {height} px are more than its {size} bytes can be; copy it again")
        # One uncompressed run of rows may be cut anywhere, however large its strips are.
        segment_height, start = _ROWS, offsets[0]
        offsets = tuple(range(start, start + height * row_bytes, _ROWS * row_bytes))
        lengths = tuple(row_bytes * min(_ROWS, height - _ROWS * i) for i in range(len(offsets)))
    if row_bytes * segment_height > MOST_SEGMENT_BYTES:
        raise SourceError(
            f"{name}: its pieces are {segment_width} x {segment_height} px, too large to be decoded on board; "
            f"rewrite it: {rewrite(name)}"
        )
    layout = Layout(
        name, width, height, segment_width, segment_height, bands, planes, compression, int(_tag(page, 317, 1)),
        int(page.photometric), dtype, _alpha(page, bands), _nodata(page), _palette(page), _roles(page, bands),
        offsets, lengths, tiled, tuple(_kept_tags(page)),
    )  # fmt: skip
    _require_decoder(layout)
    return layout


def rewrite(name: str, more: str = "") -> str:
    """Return the command that rewrites a file so that it can be read."""
    return f"gdal_translate {more}-co TILED=YES -co COMPRESS=DEFLATE {name} new.tif"


def _tag(page: Any, code: int, default: int) -> int:
    value = page.tags.valueof(code, default=default)
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, (int, float)) else default


def _dtype(page: Any, name: str) -> np.dtype[Any]:
    bits, kinds = page.tags.valueof(258, default=1), page.tags.valueof(339, default=1)
    sizes = set(bits if isinstance(bits, tuple) else (bits,))
    letters = {_KINDS.get(int(kind)) for kind in (kinds if isinstance(kinds, tuple) else (kinds,))}
    size, letter = (sizes.pop() if len(sizes) == 1 else 0), (letters.pop() if len(letters) == 1 else None)
    allowed = {"u": {8, 16, 32}, "i": {8, 16, 32}, "f": {32, 64}}.get(letter or "", set())
    if size not in allowed:
        raise SourceError(
            f"{name}: samples of {bits} bits and format {kinds}, expected whole numbers of 8, 16 or 32 bits or "
            f"floating point of 32 or 64; convert it: {rewrite(name, '-ot Byte -scale ')}"
        )
    order = ">" if page.parent.byteorder == ">" else "<"
    return np.dtype(f"{order}{letter}{size // 8}")


def _segment_size(page: Any, name: str, tiled: bool) -> tuple[int, int]:
    width, height = int(page.imagewidth), int(page.imagelength)
    if tiled:
        size = _tag(page, 322, 0), _tag(page, 323, 0)
        what = f"TileWidth {size[0]}, TileLength {size[1]}"
    else:
        rows = _tag(page, 278, height)
        size, what = (width, min(rows, height)), f"RowsPerStrip {rows}"
    if min(size) < 1 or -(-width // size[0]) * -(-height // size[1]) > MOST_SEGMENTS:
        raise SourceError(f"{name}: {what} for a picture of {width} x {height} px: a broken directory; copy it again")
    return size


def _places(page: Any, name: str, count: int, tiled: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where the pieces lie and how long they are, as far as the directory says it."""
    offsets, lengths = (_numbers(page, codes) for codes in ((324, 273), (325, 279)))
    if len(offsets) < count:
        kind = "TileOffsets" if tiled else "StripOffsets"
        raise SourceError(
            f"{name}: its directory has {len(offsets)} {kind} for {count} pieces; copy it again, or write the mosaic "
            "again with the program that made it"
        )
    return offsets[:count], lengths[:count]


def _numbers(page: Any, codes: tuple[int, ...]) -> tuple[int, ...]:
    for code in codes:
        value = page.tags.valueof(code)
        if value is not None:
            values = value if isinstance(value, (tuple, list, np.ndarray)) else (value,)
            return tuple(int(number) for number in values)
    return ()


def _one_run(offsets: tuple[int, ...], lengths: tuple[int, ...], size: int) -> bool:
    ends = [offset + length for offset, length in zip(offsets, lengths, strict=False)]
    return ends[:-1] == list(offsets[1:]) and sum(lengths) == size


def _alpha(page: Any, bands: int) -> int | None:
    """Return which band is opacity: ExtraSamples names the last bands, 1 and 2 being opacity (TIFF 6.0, page 31)."""
    extra = page.tags.valueof(338, default=())
    kinds = [int(kind) for kind in (extra if isinstance(extra, tuple) else (extra,))]
    return next((bands - len(kinds) + i for i, kind in enumerate(kinds) if kind in {1, 2}), None)


def _nodata(page: Any) -> float | None:
    """Return the value that GDAL's tag names as "no data"."""
    try:
        return float(str(page.tags.valueof(42113)).strip("\x00 "))
    except ValueError:
        return None


def _roles(page: Any, bands: int) -> tuple[str, ...]:
    """Return what GDAL's metadata calls each band, as ``red``; empty where it does not say."""
    text = str(page.tags.valueof(42112, default=""))[: 1 << 20]
    roles = [""] * bands
    for item in text.split("<Item ")[1:]:
        head, _, rest = item.partition(">")
        sample = head.partition('sample="')[2].partition('"')[0]
        if 'role="colorinterp"' in head and sample.isdigit() and len(sample) < 6 and int(sample) < bands:
            roles[int(sample)] = rest.partition("<")[0].strip().lower()
    return tuple(roles)


def _palette(page: Any) -> tuple[int, ...] | None:
    value = page.tags.valueof(320)
    return None if value is None or int(page.photometric) != PALETTE else tuple(int(v) for v in np.ravel(value))


def _require_decoder(layout: Layout) -> None:
    """Refuse a compression that nothing here decodes, and codings that cannot be shown."""
    if layout.compression == PLAIN or layout.compression in DEFLATE:
        known = True
    elif layout.compression in BY_LIBTIFF:
        # Of JPEG with a fourth band OpenCV gives other values than were written.
        known = layout.compression != JPEG or (layout.dtype == np.uint8 and layout.samples in {1, 3})
    else:
        known = _tifffile_decodes(layout.compression)
    if not known or layout.predictor not in {1, 2, 3}:
        what = _NAMES.get(layout.compression, f"compression {layout.compression}")
        raise SourceError(
            f"{layout.name}: compressed with {what} (predictor {layout.predictor}), which nothing installed here can "
            f"decode; rewrite it: {rewrite(layout.name)}, or pip install imagecodecs"
        )


def _tifffile_decodes(compression: int) -> bool:
    """Say whether tifffile finds a decoder: imagecodecs where it is installed, or Python's own Zstandard."""
    import tifffile

    try:
        tifffile.TIFF.DECOMPRESSORS[compression](b"")
    except (KeyError, ImportError):
        return False
    except Exception:  # a decoder that is there and refuses an empty piece
        return True
    return True


def _kept_tags(page: Any) -> Iterator[tuple[int, int, bytes]]:
    for code in _KEPT_TAGS:
        value = page.tags.valueof(code)
        if value is None:
            continue
        if isinstance(value, bytes):
            yield code, 7, value
        elif code == 532:  # fractions
            yield code, 5, struct.pack(f"<{len(value)}I", *(int(x) for x in value))
        else:
            numbers = [int(x) for x in (value if isinstance(value, tuple) else (value,))]
            yield code, 3, struct.pack(f"<{len(numbers)}H", *numbers)
