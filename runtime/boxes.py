"""Boxes of the ISO base media format (ISO/IEC 14496-12, 4.2), of which MP4, HEIF and AVIF files are built."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BOXES = 20_000  # a picture of 100 megapixels in tiles of 512 pixels has 400 items


def boxes(content: memoryview, place: int = 0) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the (kind, content) of each box from a place on; a box that runs past the end ends them.

    Of one box no more than ``MAX_BOXES`` are looked at: an empty one takes eight bytes.
    """
    for _ in range(MAX_BOXES):
        if place + 8 > len(content):
            return
        size, kind = struct.unpack_from(">I4s", content, place)
        start = place + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = len(content) if size == 0 else place + size
        if end < start or end > len(content):
            return
        yield kind, content[start:end]
        place = end
