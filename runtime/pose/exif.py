"""The Exif and XMP tags of a still, read without an imaging library: they say where, when and with which lens."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overflight.runtime.bounded import open_regular
from overflight.runtime.pose.tag_blocks import TIFF_STARTS, find_tag_blocks
from overflight.runtime.pose.xmp import read_xmp

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.pose.tag_blocks import Content, TagBlocks

Value = str | tuple[float, ...]
Tags = dict[int, Value]

# Size in bytes and struct letter of each TIFF type; rationals are two of theirs.
_TYPES = {
    1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "I"), 6: (1, "b"), 7: (1, "s"), 8: (2, "h"),
    9: (4, "i"), 10: (8, "i"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"),
}  # fmt: skip
_EXIF_IFD, _GPS_IFD, _SUB_IFDS, _XMP = 0x8769, 0x8825, 0x14A, 700
MAX_BYTES = 1 << 40  # only the pages that hold tags are read
_MAX_ENTRIES, _MAX_SUB_IFDS, _MAX_VALUES = 512, 8, 256
_MAX_VALUE_BYTES = 4096  # of one tag; the rest of a longer value is left out


@dataclass
class StillTags:
    """The tags of one still, each empty where the file has none.

    ``picture`` and ``gps`` are keyed by number, ``picture`` holding the Exif directory too; numbers are tuples,
    rationals divided. ``xmp`` is keyed by maker and name, as ``dji:GimbalPitchDegree``.
    """

    picture: Tags = field(default_factory=dict)
    gps: Tags = field(default_factory=dict)
    xmp: dict[str, str] = field(default_factory=dict)


def read_tags(path: Path) -> StillTags:
    """Return the tags of a still, wherever in the file they lie; damaged directories yield what can be read of them."""
    with open_regular(path, MAX_BYTES) as file:
        if not os.fstat(file.fileno()).st_size:
            return StillTags()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            return _tags(content)


def _tags(content: memoryview) -> StillTags:
    blocks = find_tag_blocks(content)
    tags = StillTags()
    head = bytes(blocks.exif[:4])
    if head in TIFF_STARTS:
        tags = _Directories(blocks, "<" if head[:1] == b"I" else ">", 43 in head).read()
    for packet in blocks.xmp:
        tags.xmp = read_xmp(packet) | tags.xmp  # the first packet wins over an extension or a second one
    return tags


@dataclass(frozen=True)
class _Directories:
    """The tag directories of one TIFF structure; ``big`` is the form with 64-bit offsets."""

    blocks: TagBlocks
    order: str
    big: bool

    @property
    def tiff(self) -> Content:
        """The TIFF structure."""
        return self.blocks.exif

    def read(self) -> StillTags:
        start = self._number("Q", 8) if self.big else self._number("I", 4)
        picture = self._directory(start)
        gps = self._directory(self._pointer(picture, _GPS_IFD))
        for tag in (_EXIF_IFD, _SUB_IFDS):
            places = picture.get(tag, ())
            for place in () if isinstance(places, str) else places[:_MAX_SUB_IFDS]:
                more = self._directory(int(place))
                # The Exif directory adds to the picture; a raw or small picture behind it only fills gaps.
                picture = picture | more if tag == _EXIF_IFD else more | picture
                gps = gps or self._directory(self._pointer(more, _GPS_IFD))
        return StillTags(picture, gps)

    def _number(self, letter: str, place: int) -> int:
        if place + struct.calcsize(letter) > len(self.tiff):
            return 0
        return int(struct.unpack_from(self.order + letter, self.tiff, place)[0])

    @staticmethod
    def _pointer(tags: Tags, tag: int) -> int:
        value = tags.get(tag)
        return int(value[0]) if isinstance(value, tuple) and value else 0

    def _directory(self, place: int) -> Tags:
        count_size, entry_size, inline = (8, 20, 8) if self.big else (2, 12, 4)
        if not 8 <= place <= len(self.tiff) - count_size:
            return {}
        count = self._number("Q" if self.big else "H", place)
        tags: Tags = {}
        first = place + count_size
        for entry in range(first, first + entry_size * min(count, _MAX_ENTRIES), entry_size):
            if entry + entry_size > len(self.tiff):
                break
            tag, kind, length = struct.unpack_from(self.order + ("HHQ" if self.big else "HHI"), self.tiff, entry)
            raw = self._raw(kind, length, entry + entry_size - inline, inline)
            if tag == _XMP and raw:
                with suppress(ValueError):  # more than one file may take
                    self.blocks.add_xmp(raw)
            elif raw and (value := self._value(kind, bytes(raw[:_MAX_VALUE_BYTES]))) is not None:
                tags[tag] = value
        return tags

    def _raw(self, kind: int, length: int, place: int, inline: int) -> Content:
        """Return the bytes of a value, from the entry itself or from where it points; empty where they are missing."""
        size = _TYPES[kind][0] * length if kind in _TYPES else 0
        if size > inline:
            place = self._number("Q" if self.big else "I", place)
        if size <= 0 or place + size > len(self.tiff):
            return b""
        return self.tiff[place : place + size]

    def _value(self, kind: int, raw: bytes) -> Value | None:
        size, letter = _TYPES[kind]
        if letter == "s":
            return raw.split(b"\x00")[0].decode("utf-8", "replace").strip()
        rational = kind in {5, 10}
        count = min(len(raw) // size, _MAX_VALUES) * (2 if rational else 1)
        numbers = struct.unpack_from(f"{self.order}{count}{letter}", raw)
        if not rational:
            return tuple(float(n) for n in numbers)
        # A denominator of 0 means "not known": the value stands in its place, so that the others keep theirs.
        return tuple(a / b if b else float("nan") for a, b in zip(numbers[::2], numbers[1::2], strict=True))
