"""The Exif and XMP of a still, read without an imaging library: the tags that say where, when and with which lens."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Value = str | tuple[float, ...]

# Size in bytes and struct letter of each TIFF type; rationals are two of theirs.
_TYPES = {1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "I"), 7: (1, "s"), 9: (4, "i"), 10: (8, "i")}
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_XMP_BEGIN, _XMP_END = b"<x:xmpmeta", b"</x:xmpmeta>"
_HEAD_BYTES = 256 * 1024  # cameras write Exif and XMP before the pixels
_MAX_ENTRIES = 512


def read_tags(path: Path) -> tuple[dict[int, Value], dict[int, Value], dict[str, str]]:
    """Return (picture tags, GPS tags, XMP of DJI) of a JPEG or TIFF; each empty where the file has none.

    Tags are keyed by number, picture tags holding those of the Exif directory too; numbers are tuples, rationals
    divided. Damaged directories yield what could be read before the damage.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = head.find(b"Exif\x00\x00")
    tiff = head[start + 6 :] if start >= 0 else head
    picture: dict[int, Value] = {}
    gps: dict[int, Value] = {}
    if tiff[:4] in (b"II*\x00", b"MM\x00*"):
        order = "<" if tiff[:1] == b"I" else ">"
        picture = _directory(tiff, order, _at(tiff, order, 4))
        gps = _directory(tiff, order, _pointer(picture, _GPS_IFD))
        picture |= _directory(tiff, order, _pointer(picture, _EXIF_IFD))
    return picture, gps, _xmp(head)


def _at(tiff: bytes, order: str, place: int) -> int:
    return int(struct.unpack_from(order + "I", tiff, place)[0]) if place + 4 <= len(tiff) else 0


def _pointer(tags: dict[int, Value], tag: int) -> int:
    value = tags.get(tag)
    return int(value[0]) if isinstance(value, tuple) and value else 0


def _directory(tiff: bytes, order: str, place: int) -> dict[int, Value]:
    if not 8 <= place <= len(tiff) - 2:
        return {}
    (count,) = struct.unpack_from(order + "H", tiff, place)
    tags: dict[int, Value] = {}
    for entry in range(place + 2, place + 2 + 12 * min(count, _MAX_ENTRIES), 12):
        if entry + 12 > len(tiff):
            break
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
        value = _value(tiff, order, entry + 8, kind, length)
        if value is not None:
            tags[tag] = value
    return tags


def _value(tiff: bytes, order: str, place: int, kind: int, length: int) -> Value | None:
    if kind not in _TYPES:
        return None
    size, letter = _TYPES[kind]
    if size * length > 4:
        place = _at(tiff, order, place)
    if length == 0 or place + size * length > len(tiff):
        return None
    if letter == "s":
        return tiff[place : place + length].split(b"\x00")[0].decode("ascii", "replace").strip()
    rational = kind in {5, 10}
    numbers = struct.unpack_from(f"{order}{length * (2 if rational else 1)}{letter}", tiff, place)
    if not rational:
        return tuple(float(n) for n in numbers)
    if not all(numbers[1::2]):
        return None
    return tuple(a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def _xmp(head: bytes) -> dict[str, str]:
    """Return the ``drone-dji`` values, whether written as attributes or as elements."""
    begin = head.find(_XMP_BEGIN)
    end = head.find(_XMP_END, begin)
    if begin < 0 or end < 0:
        return {}
    text = head[begin:end].decode("utf-8", "replace")
    values = dict(re.findall(r'drone-dji:(\w+)\s*=\s*"([^"]*)"', text))
    return values | dict(re.findall(r"<drone-dji:(\w+)>([^<]*)</", text))
