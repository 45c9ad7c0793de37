"""A large TIFF file read in windows, never decoded whole.

tifffile reads the structure. Deflate and plain pieces are decoded with zlib and numpy, the others by OpenCV's libtiff,
which gets each piece as a small TIFF file of its own; what neither knows is tried with imagecodecs, if it is installed.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.geotiff.layout import BY_LIBTIFF, DEFLATE, JPEG, PLAIN, YCBCR, Layout, open_tiff, read_layout

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

CACHE_BYTES = 128 << 20  # one row of windows of a picture 40,000 px wide, for files that lie in strips
_JPEG_TABLES = 347
_MOST_OVERHEAD = 1 << 20  # of a coded piece beyond twice its pixels: headers and tables
_SIZES = {3: 2, 4: 4, 5: 8, 7: 1}  # bytes of a value, by its TIFF type


class Raster:
    """The first picture of a TIFF file. ``page`` is tifffile's view of its directory."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        """Open a file and check its directory. Raises SourceError."""
        self.name = str(path)
        self._tiff = open_tiff(path)
        try:
            self.page = self._tiff.pages[0]
            self.layout = read_layout(self.page, self.name)
        except SourceError:
            self._tiff.close()
            raise
        except Exception as error:  # a broken directory fails in the library's own ways
            self._tiff.close()
            raise SourceError(f"{path}: its directory is damaged ({error}); copy it again") from error
        self._size = os.fstat(self._tiff.filehandle.fileno()).st_size
        self._most_cached = cache_bytes
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._cached_bytes = 0

    def limit_cache(self, width: int, height: int) -> None:
        """Keep no more decoded pieces than a window of this size touches: for windows that are read once."""
        layout = self.layout
        across = min(layout.across, -(-width // layout.segment_width) + 1)
        down = min(layout.down, -(-height // layout.segment_height) + 1)
        piece = layout.segment_width * layout.segment_height * layout.samples * layout.dtype.itemsize
        self._most_cached = min(self._most_cached, across * down * layout.planes * piece)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()
        self._cache.clear()
        self._cached_bytes = 0

    def read(self, top: int, left: int, bottom: int, right: int, bands: tuple[int, ...]) -> NDArray[Any]:
        """Read a window as ``[rows, columns, bands]`` in the file's own type. Raises SourceError."""
        layout = self.layout
        pixels: NDArray[Any] = np.empty((bottom - top, right - left, len(bands)), layout.dtype.newbyteorder("="))
        for row in range(top // layout.segment_height, -(-bottom // layout.segment_height)):
            for column in range(left // layout.segment_width, -(-right // layout.segment_width)):
                y, x = row * layout.segment_height, column * layout.segment_width
                y0, y1 = max(top, y), min(bottom, y + layout.segment_height)
                x0, x1 = max(left, x), min(right, x + layout.segment_width)
                for place, band in enumerate(bands):
                    plane, sample = (band, 0) if layout.planes > 1 else (0, band)
                    segment = self.segment((plane * layout.down + row) * layout.across + column)
                    pixels[y0 - top : y1 - top, x0 - left : x1 - left, place] = segment[
                        y0 - y : y1 - y, x0 - x : x1 - x, sample
                    ]
        return pixels

    def segment(self, index: int) -> NDArray[Any]:
        """Decode one tile or strip to ``[rows, columns, samples]``, or take it from those decoded last."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        decoded = self._load(index)
        self._cache[index] = decoded
        self._cached_bytes += decoded.nbytes
        while self._cached_bytes > self._most_cached and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return decoded

    def _load(self, index: int) -> NDArray[Any]:
        layout = self.layout
        rows, length, offset = layout.rows(index), layout.lengths[index], layout.offsets[index]
        shape = (rows, layout.segment_width, layout.samples)
        if not length:  # a sparse file: this part was never written
            return np.full(shape, layout.nodata or 0, layout.dtype.newbyteorder("="))
        if offset + length > self._size:
            raise SourceError(f"{self.name}: cut off at byte {self._size}; copy it again")
        most = 2 * rows * layout.segment_width * layout.samples * layout.dtype.itemsize + _MOST_OVERHEAD
        if length > most:
            raise SourceError(f"{self.name}: the piece at byte {offset} has {length} bytes, expected at most {most}")
        raw = os.pread(self._tiff.filehandle.fileno(), length, offset)
        try:
            decoded = self._decode(raw, index, rows)
        except Exception as error:  # zlib, OpenCV, tifffile and imagecodecs each fail in their own ways
            raise SourceError(f"{self.name}: the piece at byte {offset} cannot be decoded ({error})") from error
        if decoded is None or decoded.shape != shape:
            raise SourceError(f"{self.name}: the piece at byte {offset} cannot be decoded")
        return decoded

    def _decode(self, raw: bytes, index: int, rows: int) -> NDArray[Any] | None:
        layout = self.layout
        row_bytes = layout.segment_width * layout.samples * layout.dtype.itemsize
        if layout.compression == JPEG:
            return _jpeg(layout, raw, rows)
        if layout.compression == PLAIN:
            plain = raw
        elif layout.compression in DEFLATE:  # libtiff fills what is broken with black and says nothing; zlib knows
            plain = zlib.decompressobj().decompress(raw, rows * row_bytes)
        elif layout.compression in BY_LIBTIFF:
            plain = _unpacked(layout, raw, rows, row_bytes)
        else:
            return self._by_tifffile(raw, index)
        if len(plain) < rows * row_bytes:
            return None
        return _predicted(layout, plain[: rows * row_bytes], rows)

    def _by_tifffile(self, raw: bytes, index: int) -> NDArray[Any] | None:
        tables = self.page.tags.valueof(347)
        decoded, _, _ = self.page.decode(raw, index, jpegtables=tables, _fullsize=True)
        return None if decoded is None else np.asarray(decoded)[0][: self.layout.rows(index)]


def _predicted(layout: Layout, raw: bytes, rows: int) -> NDArray[Any]:
    """Turn a piece's bytes into numbers, differences between neighbours (predictors 2 and 3) undone."""
    shape = (rows, layout.segment_width, layout.samples)
    native = layout.dtype.newbyteorder("=")
    if layout.predictor == 3:  # floating point: the bytes of a row stand plane by plane, most significant first
        planes = np.frombuffer(raw, np.uint8).reshape(rows, -1)
        size = layout.samples
        summed = np.add.accumulate(planes.reshape(rows, -1, size), axis=1, dtype=np.uint8).reshape(rows, -1)
        whole = summed.reshape(rows, layout.dtype.itemsize, -1).transpose(0, 2, 1)
        numbers: NDArray[Any] = np.ascontiguousarray(whole).view(layout.dtype.newbyteorder(">"))
        return numbers.reshape(shape).astype(native)
    pixels = np.frombuffer(raw, layout.dtype).reshape(shape)
    if layout.predictor == 2:
        unsigned = np.dtype(f"u{layout.dtype.itemsize}")
        whole = pixels.astype(native).view(unsigned)
        return np.add.accumulate(whole, axis=1, dtype=unsigned).view(native)
    return pixels.astype(native, copy=False)


def _unpacked(layout: Layout, raw: bytes, rows: int, row_bytes: int) -> bytes:
    """Let libtiff unpack a piece: as a grey picture of 16 bits, whatever the bytes mean.

    OpenCV hands 8-bit pictures on with black where libtiff failed; of 16-bit ones it says so.
    """
    bits = 8 if rows * row_bytes % 2 else 16
    size = (row_bytes // 2, rows) if row_bytes % 2 == 0 else (row_bytes, rows // 2) if bits == 16 else (row_bytes, rows)
    tags = [tag for tag in layout.tags if tag[0] == 266]
    cv2 = _opencv()
    file = _as_file(raw, size, 1, bits, layout.compression, 1, tags)
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    return b"" if decoded is None else bytes(decoded.astype(f"<u{bits // 8}", copy=False).tobytes())


def _jpeg(layout: Layout, raw: bytes, rows: int) -> NDArray[Any] | None:
    """Decode a JPEG piece. Raises ValueError with the decoder's words where it is damaged.

    OpenCV paints over damage and says nothing, so it decodes only what simplejpeg does not: four samples.
    """
    if not raw.rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    if layout.samples in {1, 3} and (strict := _simplejpeg()) is not None:
        whole = _whole_jpeg(layout, raw)
        height, width, *_ = strict.decode_jpeg_header(whole, strict=False)
        if (height, width) != (rows, layout.segment_width):  # before room is made for what its own header states
            return None
        pixels: NDArray[Any] = strict.decode_jpeg(whole, "GRAY" if layout.samples == 1 else "RGB", strict=True)
        return pixels
    photometric = layout.photometric if layout.samples > 1 else 1
    file = _as_file(raw, (layout.segment_width, rows), layout.samples, 8, JPEG, photometric, list(layout.tags))
    cv2 = _opencv()
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        return None
    if decoded.ndim == 2:
        grey: NDArray[Any] = decoded[:, :, None]
        return grey
    return np.ascontiguousarray(decoded[:, :, [2, 1, 0, *range(3, decoded.shape[2])]])


def _whole_jpeg(layout: Layout, raw: bytes) -> bytes:
    """Put the tables that all pieces share into one, and a marker that says whether its colours are YCbCr or RGB."""
    tables = next((value for code, _, value in layout.tags if code == _JPEG_TABLES), b"\xff\xd8\xff\xd9")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([1 if layout.photometric == YCBCR else 0])
    return b"\xff\xd8" + (adobe if layout.samples == 3 else b"") + tables[2:-2] + raw[2:]


def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    module: ModuleType = simplejpeg
    return module


def _as_file(
    raw: bytes,
    size: tuple[int, int],
    samples: int,
    bits: int,
    compression: int,
    photometric: int,
    more: list[tuple[int, int, bytes]],
) -> bytes:
    """Wrap one piece as a TIFF file of one strip."""
    short, long = 3, 4
    tags = [
        (256, long, struct.pack("<I", size[0])),
        (257, long, struct.pack("<I", size[1])),
        (258, short, struct.pack(f"<{samples}H", *[bits] * samples)),
        (259, short, struct.pack("<H", compression)),
        (262, short, struct.pack("<H", photometric)),
        (273, long, b"\0\0\0\0"),  # set below, once the length of the directory is known
        (277, short, struct.pack("<H", samples)),
        (278, long, struct.pack("<I", size[1])),
        (279, long, struct.pack("<I", len(raw))),
        *(tag for tag in more if tag[0] != 284),
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


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("OpenCV", "cpu") from error
    return cv2
