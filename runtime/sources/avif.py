"""How an AVIF picture is turned: OpenCV decodes it as it is stored."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.boxes import boxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BRANDS = frozenset({b"avif", b"avis"})
_CROP = b"clap"


def is_avif(raw: bytes) -> bool:
    """Return whether the bytes are those of an AVIF picture."""
    return raw[4:8] == b"ftyp" and raw[8:12] in _BRANDS


def turn(pixels: NDArray[Any], raw: bytes) -> NDArray[Any]:
    """Turn and mirror a decoded picture as its ``irot`` and ``imir`` properties say (ISO/IEC 23008-12, 6.5.10 and 12).

    These count, not the orientation in its Exif block. Raises ValueError for damaged tables, and for a crop (``clap``).
    """
    for kind, value in _transforms(memoryview(raw)):
        if kind == b"irot":
            pixels = np.rot90(pixels, value & 3)
        elif kind == b"imir":
            pixels = pixels[:, ::-1] if value & 1 else pixels[::-1]
        elif kind == _CROP:
            raise ValueError("it asks for a crop, which is not applied here")
    return np.ascontiguousarray(pixels)


def _transforms(raw: memoryview) -> Iterator[tuple[bytes, int]]:
    """Yield the first picture's properties in their order, each with its first byte."""
    try:
        meta = dict(boxes(dict(boxes(raw))[b"meta"], 4))
        (first,) = struct.unpack_from(">I" if meta[b"pitm"][0] else ">H", meta[b"pitm"], 4)
        tables = dict(boxes(meta[b"iprp"]))
        properties = list(boxes(tables[b"ipco"]))
        for number in _associated(tables[b"ipma"], first):
            kind, content = properties[number - 1]
            yield kind, content[0] if len(content) else 0
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"its tables are damaged: {error}") from error


def _associated(ipma: memoryview, item: int) -> list[int]:
    """Read which properties belong to an item: numbers from 1 in the table of properties."""
    wide_item, wide_number = ipma[0] > 0, ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(count):
        (found,) = struct.unpack_from(">I" if wide_item else ">H", ipma, at)
        at += 4 if wide_item else 2
        many, at = ipma[at], at + 1
        numbers = struct.unpack_from(f">{many}{'H' if wide_number else 'B'}", ipma, at)
        at += many * (2 if wide_number else 1)
        if found == item:
            return [number & (0x7FFF if wide_number else 0x7F) for number in numbers if number]
    return []
