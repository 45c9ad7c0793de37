"""Reading one still: bounded in size, and refused when it is damaged or no picture at all."""

from __future__ import annotations

import errno
import io
import struct
import time
import zlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import NoSourceError, SourceError, missing_extra
from overflight.runtime.frame import Frame
from overflight.runtime.pose.tag_blocks import MAX_PIECES
from overflight.runtime.sources import avif, jpeg
from overflight.runtime.sources.depth import to_8_bit

if TYPE_CHECKING:
    import os
    from types import ModuleType

    from numpy.typing import NDArray

_HEIF = frozenset({".heic", ".heif", ".hif"})
_NO_FILE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
SUFFIXES = _HEIF | {".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".pgm", ".avif"}
MAX_PIXELS = 128_000_000  # above every aerial camera of today; 384 MB once decoded
MAX_BYTES = 1 << 30  # such a picture in 16 bits, uncompressed, takes 768 MB
_MAX_PAGES = 1_000  # of a TIFF file
_HEADER_BYTES = 65_536  # where every format but TIFF states its size
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_REDUCED, _RAW = (
    1,
    frozenset({32803, 34892}),
)  # a TIFF page that is a smaller copy; a sensor's mosaic before development


def opencv() -> ModuleType:
    """Import OpenCV. Raises MissingError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("OpenCV", "cpu") from error
    return cv2


def read_image(path: str | os.PathLike[str], number: int = 0) -> Frame:
    """Read a still as the viewer shows it (EXIF orientation applied). Raises SourceError; NoSourceError if missing."""
    return read_noted(path, number)[0]


def read_noted(path: str | os.PathLike[str], number: int = 0) -> tuple[Frame, str | None]:
    """Read a still, and say what had to be assumed: a depth, a page. Raises SourceError; NoSourceError if missing."""
    opencv()
    path = Path(path)
    arrived_ns = time.monotonic_ns()
    try:
        raw = read_regular(path, MAX_BYTES)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise NoSourceError(f"{path}: {error.strerror}; expected the file of a picture") from error
        raise SourceError(f"{path}: {error.strerror}; check its permissions and the disk") from error
    if not raw:
        raise SourceError(f"{path}: an empty file; copy or take it again")
    pixels, note = _decode(path, raw)
    return Frame(pixels, number, arrived_ns, order="bgr", name=path.name), note


def decode_still(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a picture that came from elsewhere than a file, to BGR. Raises SourceError."""
    if not raw:
        raise SourceError(f"{name}: an empty picture; check the camera")
    return _decode(Path(name), raw)[0]


def _decode(path: Path, raw: bytes) -> tuple[NDArray[np.uint8], str | None]:
    _refuse_huge(path, _stated_size(raw))
    if jpeg.is_jpeg(raw):
        return _decode_jpeg(path, raw), None
    if raw[4:8] == b"ftyp" and raw[8:12] in _HEIF_BRANDS:
        return _decode_heif(path, raw), None
    page, note, single = 0, None, False
    if avif.is_avif(raw):
        return _decode_avif(path, raw)
    if raw.startswith(_PNG):
        raw = _sound_png(path, raw)
    elif raw.startswith(_TIFF):
        page, note, single = _choose_page(path)
    pixels, stretched = to_8_bit(_decode_any(path, raw, page, single=single), path)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels, "; ".join(part for part in (note, stretched) if part) or None


def _decode_any(path: Path, raw: bytes, page: int = 0, *, single: bool = False, turned: bool = True) -> NDArray[Any]:
    cv2 = opencv()
    how = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_ANYCOLOR if single else cv2.IMREAD_COLOR)
    if not turned:
        how |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        if page:
            read, pages = cv2.imreadmulti(str(path), start=page, count=1, flags=how)
            pixels = pages[0] if read else None
        else:
            pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), how)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise SourceError(
            f"{path}: not a picture that OpenCV can decode; expected JPEG, PNG, TIFF, BMP or WebP: convert or remove it"
        )
    decoded: NDArray[Any] = pixels
    return decoded


def _decode_jpeg(path: Path, raw: bytes) -> NDArray[np.uint8]:
    try:
        end = jpeg.end_of_picture(raw)
        if end is None:
            raise SourceError(f"{path}: the picture is cut off after {len(raw)} bytes; copy it again")
        pixels = jpeg.decode(raw[:end])
    except ValueError as error:
        raise SourceError(f"{path}: the picture is damaged ({error}); copy it again") from error
    return to_8_bit(_decode_any(path, raw), path)[0] if pixels is None else pixels


def _decode_heif(path: Path, raw: bytes) -> NDArray[np.uint8]:
    """HEIF pictures are grids of tiles, which OpenCV and FFmpeg take for pictures of their own."""
    try:
        import pillow_heif
    except ImportError as error:
        raise SourceError(
            f"{path}: a HEIC picture; run: pip install pillow-heif, or convert it: heif-convert {path.name} NEW.jpg"
        ) from error
    try:
        picture = pillow_heif.open_heif(io.BytesIO(raw), convert_hdr_to_8bit=True, bgr_mode=True)
        _refuse_huge(path, picture.size)
        pixels = np.asarray(picture)[:, :, :3]
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise SourceError(f"{path}: the HEIC picture is damaged ({error}); copy it again") from error
    return np.ascontiguousarray(pixels, np.uint8)


def _decode_avif(path: Path, raw: bytes) -> tuple[NDArray[np.uint8], str | None]:
    pixels, stretched = to_8_bit(_decode_any(path, raw, turned=False), path)
    try:
        return avif.turn(pixels, raw), stretched
    except ValueError as error:
        raise SourceError(
            f"{path}: the AVIF picture cannot be shown as its file asks ({error}); convert it to PNG"
        ) from error


def _stated_size(raw: bytes) -> tuple[int, int]:
    """Return (width, height) as the header states them; (0, 0) where the decoder's own limit has to do."""
    try:
        import imagesize
    except ImportError as error:
        raise missing_extra("imagesize", "cpu") from error
    if jpeg.is_jpeg(raw):
        return jpeg.size(raw) or (0, 0)
    if raw[4:8] == b"ftyp":  # HEIF and AVIF: tables that take minutes to read fit into a few bytes
        return 0, 0
    try:
        width, height = imagesize.get(io.BytesIO(raw if raw.startswith(_TIFF) else raw[:_HEADER_BYTES]))
    except (ValueError, OSError, IndexError, KeyError, TypeError, struct.error):  # torn: the decoder judges the rest
        return 0, 0
    return max(0, width), max(0, height)


def _refuse_huge(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"{path}: {width} x {height} px is {width * height / 1e6:.0f} megapixels, the limit is "
            f"{MAX_PIXELS / 1e6:.0f}; cut it into tiles first"
        )


def _sound_png(path: Path, raw: bytes) -> bytes:
    """Follow the chunks: each carries a checksum, and the last is IEND. Return the picture without its texts.

    The decoder would inflate every text, and one of a few kB may hold gigabytes.
    """
    at, kept = len(_PNG), [_PNG]
    for _ in range(MAX_PIECES):
        if at + 12 > len(raw):
            break
        length, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(raw):
            break
        wrong = zlib.crc32(raw[at + 4 : end - 4]) != int.from_bytes(raw[end - 4 : end], "big")
        if wrong and kind[:1].isupper():  # a critical chunk; the others do not carry the picture
            raise SourceError(f"{path}: the picture is damaged at byte {at}; copy it again")
        if kind not in _PNG_TEXTS:
            kept.append(raw[at:end])
        if kind == b"IEND":
            return b"".join(kept)
        at = end
    raise SourceError(f"{path}: the picture is cut off after {len(raw)} bytes; copy it again")


def _choose_page(path: Path) -> tuple[int, str | None, bool]:
    """Choose the largest page of a TIFF file that is no smaller copy of another.

    Return its number, a note where there are several, and whether it is of one channel in floating point, which OpenCV
    reads as such only.
    """
    try:
        import tifffile
    except ImportError:
        return 0, None, False
    try:
        with tifffile.TiffFile(path) as tiff:
            read = enumerate(islice(tiff.pages, _MAX_PAGES))
            pages = [(index, page) for index, page in read if not int(page.subfiletype) & _REDUCED]
            if any(int(page.photometric) in _RAW for _, page in pages):
                raise SourceError(
                    f"{path}: a camera's raw picture (DNG); develop it first: darktable-cli {path.name} NEW.jpg"
                )
            if not pages:
                return 0, None, False
            chosen, page = max(pages, key=lambda one: one[1].imagewidth * one[1].imagelength)
            single = page.samplesperpixel == 1 and page.dtype is not None and page.dtype.kind == "f"
            return chosen, f"{len(pages)} pages, only page {chosen + 1} is read" if pages[1:] else None, single
    except SourceError:
        raise
    except Exception:
        return 0, None, False
