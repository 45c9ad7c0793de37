"""JPEG stills: the whole picture or a refusal; what cameras append behind it is passed over."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.pose.tag_blocks import MAX_PIECES, find_tag_blocks
from overflight.runtime.sources.decoder import DAMAGED_BLOCK, has_pyav, overheard, pyav

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)  # in coded data FF is followed by 00 or a restart
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
MAX_SCANS = 100  # each goes over the whole picture; encoders write 10
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_ORIENTATION = 0x0112
# The library warns of these too, and the picture is whole. More bytes left over at the end are damage: after it the
# decoder lost its place.
_HARMLESS = re.compile(r"\b[12] extraneous bytes before marker 0xd9|Invalid SOS parameters|JFIF|Unknown Adobe")
_LOST = re.compile("premature end of data segment|bad Huffman code")
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_OTHER_FRAMES = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})


def is_jpeg(raw: bytes) -> bool:
    """Whether a file begins as JPEG does."""
    return raw.startswith(b"\xff\xd8\xff")


def end_of_picture(raw: bytes) -> int | None:
    """Return where the picture ends, None where its end is missing.

    The segments are followed from the front: a preview inside them, a second picture, a film or anything else behind
    the end (motion photos, panoramas, zeros) is neither. Raises ValueError for one that takes minutes to decode.
    """
    at, scans = 2, 0
    for _ in range(MAX_PIECES):
        if at + 4 > len(raw):
            break
        if raw[at] != 0xFF:
            found = _MARKER.search(raw, at)  # rubbish between segments, or the coded data of a scan
            if found is None:
                return None
            at = found.end() - 2
        kind = raw[at + 1]
        if kind == 0xFF:
            at += 1
        elif kind == _END:
            return at + 2
        elif kind in _BARE or kind in {0x00, _START}:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(raw[at + 2 : at + 4], "big"))
            if kind == _SCAN:
                scans += 1
                if scans > MAX_SCANS:
                    raise ValueError(f"more than {MAX_SCANS} scans")
                found = _MARKER.search(raw, at)
                if found is None:
                    return None
                at = found.end() - 2
    return len(raw) if raw[at : at + 2] == b"\xff\xd9" else None


def decode(raw: bytes) -> NDArray[np.uint8] | None:
    """Decode to BGR as the viewer shows it; None where the decoder is not installed or does not know this kind.

    Raises ValueError with the decoder's words where the picture is damaged: OpenCV's decoder paints over damage and
    returns the picture as if nothing had happened. Both are the same library, and give the same bytes.
    """
    try:
        import simplejpeg
    except ImportError:
        return None
    if _frame(raw) not in _FRAMES:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(raw, "BGR", strict=True)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise
        pixels = simplejpeg.decode_jpeg(raw, "BGR", strict=False)
    if has_pyav():
        _look_again(raw)
    return upright(pixels, orientation(raw))


def is_damaged(raw: bytes) -> bool:
    """Whether libjpeg finds a film's picture damaged; bytes too many at its end are not, for webcams write them."""
    try:
        import simplejpeg
    except ImportError:
        return False
    try:
        simplejpeg.decode_jpeg(raw, "GRAY", min_height=1, min_width=1, strict=True)  # an eighth of the size
    except ValueError as error:
        return bool(_LOST.search(str(error)))
    return False


def _look_again(raw: bytes) -> None:
    """Raise ValueError where FFmpeg's decoder finds damage: libjpeg passes over blocks of more than 64 coefficients."""
    av = pyav()
    context = av.CodecContext.create("mjpeg", "r")
    context.thread_count = 1
    context.options = {"lowres": "3"}  # an eighth of the size: the coded data is read all the same
    with overheard() as lines, suppress(av.FFmpegError, ValueError):  # it knows fewer kinds of JPEG than libjpeg
        context.decode(av.Packet(raw))
    if damage := next((line.strip() for _, _, line in lines if DAMAGED_BLOCK.search(line)), None):
        raise ValueError(f"Corrupt JPEG data: {damage}")


def size(raw: bytes) -> tuple[int, int] | None:
    """Return (width, height) as the header states them, None where there is none before the first scan."""
    at = _frame_at(raw)
    if at is None or at + 9 > len(raw):
        return None
    height, width = struct.unpack_from(">HH", raw, at + 5)
    return width, height


def _frame(raw: bytes) -> int | None:
    """Return the marker that says how the picture is coded, None where there is none before the first scan."""
    at = _frame_at(raw)
    return None if at is None else raw[at + 1]


def _frame_at(raw: bytes) -> int | None:
    at = 2
    for _ in range(MAX_PIECES):
        if at + 4 > len(raw) or raw[at] != 0xFF or raw[at + 1] == _SCAN:
            return None
        if raw[at + 1] in _FRAMES | _OTHER_FRAMES:
            return at
        at += 1 if raw[at + 1] == 0xFF else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return None


def orientation(raw: bytes) -> int:
    """Return the Exif orientation, 1 where there is none."""
    exif = bytes(find_tag_blocks(memoryview(raw)).exif)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == _ORIENTATION and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(pixels: NDArray[np.uint8], turned: int) -> NDArray[np.uint8]:
    """Turn and mirror a picture stored with this Exif orientation."""
    if turned in {5, 6, 7, 8}:
        pixels = pixels.transpose(1, 0, 2)
    if turned in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if turned in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels if turned == 1 else np.ascontiguousarray(pixels)
