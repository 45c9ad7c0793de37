"""Orthomosaics and other large TIFF files, read in windows: never decoded whole.

tifffile reads the structure; each tile or strip is handed to OpenCV's libtiff as a small TIFF file of its own, so that
every compression of orthomosaics (none, LZW, Deflate, JPEG, PackBits) is decoded without another library.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.frame import Frame
from overflight.runtime.sources.image import opencv
from overflight.runtime.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

WINDOW_PX = 1024
_CACHE_BYTES = 128 << 20  # one row of windows of a picture 40,000 px wide, for files that lie in strips
_MOST_SEGMENT_BYTES = 256 << 20
_ROWS = 64  # of an uncompressed file read at a time
_KEPT_TAGS = (266, 284, 317, 338, 347, 530, 532)  # what a decoder needs besides the sizes: predictor, JPEG tables…
_RGB, _GREY, _WHITE_IS_ZERO, _YCBCR = 2, 1, 0, 6
_PLAIN, _JPEG, _DEFLATE = 1, 7, frozenset({8, 32946})
_PREDICTOR, _DIFFERENCES = 317, 2


def is_mosaic(path: Path, window: int = WINDOW_PX) -> bool:
    """Whether a file is a TIFF of more than two windows across or down: too much for one look."""
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return False
    try:
        with _open(path) as tiff:
            page = tiff.pages[0]
            return max(int(page.imagewidth), int(page.imagelength)) > 2 * window
    except SourceError:
        return False  # the still reader says what is wrong with it


class Mosaic:
    """Every window of one large TIFF file, row by row; the last of a row or column reaches back to be whole."""

    live = False

    def __init__(self, path: Path, window: int = WINDOW_PX) -> None:
        self.name = str(path)
        self._file = path.name
        self._tiff = _open(path)
        try:
            self._layout = _Layout.read(self._tiff.pages[0], self.name)
        except SourceError:
            self._tiff.close()
            raise
        self._georeference = _georeference(self._tiff.pages[0])
        self._tops = _starts(self._layout.height, window)
        self._lefts = _starts(self._layout.width, window)
        self._window = window
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self._tops) * len(self._lefts)

    def frames(self) -> Iterator[Frame]:
        """Read window by window. Raises SourceError at the end if some could not be read."""
        cv2 = opencv()
        lost = unreadable = 0
        where = [(top, left) for top in self._tops for left in self._lefts]
        for number, (top, left) in enumerate(where):
            arrived_ns = time.monotonic_ns()
            try:
                pixels = self._read(cv2, top, left)
            except SourceError:
                lost, unreadable = lost + 1, unreadable + 1
                continue
            yield Frame(
                pixels,
                number,
                arrived_ns,
                order="bgr",
                name=f"{self._file}@{left},{top}",
                dropped={"unreadable": lost} if lost else {},
                window=self._place(top, left, pixels),
            )
            lost = 0
        if unreadable:
            raise SourceError(
                f"{self.name}: {unreadable} of {len(where)} windows cannot be decoded (cut off, or a compression that "
                "OpenCV does not know); copy it again, or rewrite it: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
            )

    def close(self) -> None:
        """Let the file go."""
        self._tiff.close()
        self._cache.clear()
        self._cached_bytes = 0

    def _read(self, cv2: ModuleType, top: int, left: int) -> NDArray[np.uint8]:
        layout = self._layout
        bottom, right = min(top + self._window, layout.height), min(left + self._window, layout.width)
        pixels: NDArray[np.uint8] = np.empty((bottom - top, right - left, 3), np.uint8)
        for row in range(top // layout.segment_height, -(-bottom // layout.segment_height)):
            for column in range(left // layout.segment_width, -(-right // layout.segment_width)):
                segment = self._segment(cv2, row * layout.across + column)
                y, x = row * layout.segment_height, column * layout.segment_width
                y0, y1 = max(top, y), min(bottom, y + layout.segment_height)
                x0, x1 = max(left, x), min(right, x + layout.segment_width)
                pixels[y0 - top : y1 - top, x0 - left : x1 - left] = segment[y0 - y : y1 - y, x0 - x : x1 - x]
        return pixels

    def _segment(self, cv2: ModuleType, index: int) -> NDArray[np.uint8]:
        """Decode one tile or strip, or take it from those decoded last."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        decoded = self._layout.decode(cv2, self._tiff.filehandle.fileno(), index, self.name)
        self._cache[index] = decoded
        self._cached_bytes += decoded.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return decoded

    def _place(self, top: int, left: int, pixels: NDArray[np.uint8]) -> Window:
        height, width, _ = pixels.shape
        if self._georeference is None:
            return Window(left, top, width, height)
        (x, across_x, down_x, y, across_y, down_y), epsg = self._georeference
        origin = (x + left * across_x + top * down_x, y + left * across_y + top * down_y)
        return Window(left, top, width, height, (origin[0], across_x, down_x, origin[1], across_y, down_y), epsg)


@dataclass(frozen=True)
class _Layout:
    """How the picture lies in the file: ``across`` segments beside each other, each tile or strip of one size."""

    width: int
    height: int
    segment_width: int
    segment_height: int
    across: int
    samples: int
    compression: int
    predictor: int
    photometric: int
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    tiled: bool
    tags: tuple[tuple[int, int, bytes], ...]  # (code, type, value) as a classic TIFF file holds them

    @classmethod
    def read(cls, page: Any, name: str) -> _Layout:
        """Take the layout from a page of tifffile's. Raises SourceError for what cannot be shown as 8-bit colour."""
        samples, photometric = int(page.samplesperpixel), int(page.photometric)
        bits, planar = page.tags.valueof(258, default=1), int(page.tags.valueof(284, default=1))
        eight_bit = set(bits if isinstance(bits, tuple) else (bits,)) == {8}
        if not eight_bit or samples > 4 or planar != 1 or photometric not in {_RGB, _GREY, _WHITE_IS_ZERO, _YCBCR}:
            raise SourceError(
                f"{name}: {samples} bands of {bits} bits, photometric {photometric}, planar {planar}: expected 8-bit "
                "grey, RGB or RGBA; convert it: gdal_translate -ot Byte -scale -b 1 -b 2 -b 3 -co TILED=YES"
            )
        width, height = int(page.imagewidth), int(page.imagelength)
        offsets, lengths = tuple(page.dataoffsets), tuple(page.databytecounts)
        tiled, compression = bool(page.is_tiled), int(page.compression)
        segment_width = int(page.tilewidth) if tiled else width
        segment_height = int(page.tilelength) if tiled else min(int(page.rowsperstrip), height)
        ends = [offset + length for offset, length in zip(offsets, lengths, strict=True)]
        if not tiled and compression == 1 and ends[:-1] == list(offsets[1:]):
            # One uncompressed run of rows may be cut anywhere, however large its strips are.
            segment_height, row_bytes = _ROWS, width * samples
            offsets = tuple(range(offsets[0], offsets[0] + height * row_bytes, _ROWS * row_bytes))
            lengths = tuple(row_bytes * min(_ROWS, height - _ROWS * i) for i in range(len(offsets)))
        if segment_width * segment_height * samples > _MOST_SEGMENT_BYTES:
            raise SourceError(
                f"{name}: its pieces are {segment_width} x {segment_height} px, too large to be decoded on board; "
                "rewrite it: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
            )
        return cls(
            width,
            height,
            segment_width,
            segment_height,
            -(-width // segment_width),
            samples,
            compression,
            int(page.tags.valueof(_PREDICTOR, default=1)),
            photometric,
            offsets,
            lengths,
            tiled,
            tuple(_kept_tags(page)),
        )

    def decode(self, cv2: ModuleType, file: int, index: int, name: str) -> NDArray[np.uint8]:
        """Decode one segment to BGR ``[height, width, 3]``. Raises SourceError."""
        rows = self.segment_height
        if not self.tiled:
            rows = min(rows, self.height - index // self.across * rows)
        length = self.lengths[index] if index < len(self.lengths) else 0
        if not length:  # a sparse file: this part was never written
            return np.zeros((rows, self.segment_width, 3), np.uint8)
        raw = os.pread(file, length, self.offsets[index])
        if len(raw) != length:
            raise SourceError(f"{name}: cut off at byte {self.offsets[index] + len(raw)}; copy it again")
        try:
            decoded = self._decode(cv2, raw, rows)
        except (cv2.error, zlib.error, ValueError):
            decoded = None
        if decoded is None or decoded.shape[:2] != (rows, self.segment_width):
            raise SourceError(f"{name}: the piece at byte {self.offsets[index]} cannot be decoded")
        return decoded

    def _decode(self, cv2: ModuleType, raw: bytes, rows: int) -> NDArray[np.uint8] | None:
        if self.compression == _JPEG and not raw.rstrip(b"\0").endswith(b"\xff\xd9"):
            return None
        if self.compression not in {_PLAIN, *_DEFLATE}:
            return self._by_libtiff(cv2, raw, rows, self.compression)
        if self.compression in _DEFLATE:  # libtiff fills what is broken with black and says nothing; zlib knows
            raw = zlib.decompress(raw)
        pixels = np.frombuffer(raw, np.uint8)[: rows * self.segment_width * self.samples]
        pixels = pixels.reshape(rows, self.segment_width, self.samples)
        if self.compression in _DEFLATE and self.predictor == _DIFFERENCES:
            pixels = np.add.accumulate(pixels, axis=1, dtype=np.uint8)
        if self.photometric == _RGB and self.samples == 3:
            return pixels[:, :, ::-1]
        return self._by_libtiff(cv2, pixels.tobytes(), rows, _PLAIN)

    def _by_libtiff(self, cv2: ModuleType, raw: bytes, rows: int, compression: int) -> NDArray[np.uint8] | None:
        file = np.frombuffer(self._as_file(raw, rows, compression), np.uint8)
        decoded: NDArray[np.uint8] | None = cv2.imdecode(file, cv2.IMREAD_COLOR)
        return decoded

    def _as_file(self, raw: bytes, rows: int, compression: int) -> bytes:
        """Wrap one segment as a TIFF file of one strip."""
        short, long = 3, 4
        tags = [
            (256, long, struct.pack("<I", self.segment_width)),
            (257, long, struct.pack("<I", rows)),
            (258, short, struct.pack(f"<{self.samples}H", *[8] * self.samples)),
            (259, short, struct.pack("<H", compression)),
            (262, short, struct.pack("<H", self.photometric)),
            (273, long, b"\0\0\0\0"),  # set below, once the length of the directory is known
            (277, short, struct.pack("<H", self.samples)),
            (278, long, struct.pack("<I", rows)),
            (279, long, struct.pack("<I", len(raw))),
            *(tag for tag in self.tags if tag[0] != _PREDICTOR or compression != _PLAIN),
        ]
        tags.sort()
        outside = 8 + 2 + 12 * len(tags) + 4
        data = sum(len(value) + len(value) % 2 for _, _, value in tags if len(value) > 4) + outside
        directory, values = b"", b""
        for code, kind, value in tags:
            stored = struct.pack("<I", data) if code == 273 else value
            if len(stored) > 4:
                stored, values = struct.pack("<I", outside + len(values)), values + stored + b"\0" * (len(stored) % 2)
            directory += struct.pack("<HHI", code, kind, len(value) // _SIZES[kind]) + stored.ljust(4, b"\0")
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + b"\0\0\0\0" + values + raw


_SIZES = {3: 2, 4: 4, 5: 8, 7: 1}  # bytes of a value, by its TIFF type


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


def _open(path: Path) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise missing_extra("tifffile", "cpu") from error
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # a torn header fails in the library's own ways: struct, index, key, its own family
        raise SourceError(f"{path}: not a TIFF file that can be read ({error}); copy it again") from error
    if not len(tiff.pages) or tiff.pages[0].imagewidth < 1:
        tiff.close()
        raise SourceError(f"{path}: a TIFF file without a picture; copy it again")
    return tiff


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover an edge and none is cut short."""
    if length <= window:
        return [0]
    return [*range(0, length - window, window), length - window]


def _georeference(page: Any) -> tuple[tuple[float, float, float, float, float, float], int | None] | None:
    """Read GeoTIFF's tags: tie point and pixel scale or a whole matrix, and the code of the coordinate system."""
    scale, tie, matrix = (page.tags.valueof(code) for code in (33550, 33922, 34264))
    if matrix is not None and len(matrix) >= 8:
        transform = (matrix[3], matrix[0], matrix[1], matrix[7], matrix[4], matrix[5])
    elif scale is not None and tie is not None and len(scale) >= 2 and len(tie) >= 6:
        column, row, _, x, y, _ = tie[:6]
        transform = (x - column * scale[0], scale[0], 0.0, y + row * scale[1], 0.0, -scale[1])
    else:
        return None
    keys = page.tags.valueof(34735, default=())
    codes = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    epsg = codes.get(3072) or codes.get(2048)  # projected before geographic
    x0, x1, x2, y0, y1, y2 = (float(value) for value in transform)
    return (x0, x1, x2, y0, y1, y2), (int(epsg) if epsg and epsg != 32767 else None)
