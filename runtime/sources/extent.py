"""Extent: how many bytes a recording's own header states that the file does not have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Return how much is missing at the end of an MP4, AVI or Matroska file; 0 where it is whole or cannot say."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        file.seek(0)
        if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}:
            end = _end_of_boxes(file, size)
        elif head[:4] == b"RIFF" and head[8:12] in {b"AVI ", b"AVIX"}:
            end = _end_of_riff(file, size)
        elif head[:4] == _EBML:
            end = _end_of_segment(file)
        else:
            return 0
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isalnum():  # 0: to the end of the file; else no box: rubbish behind the last
            return at
        at += length
    return at


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """The first chunk's end; where it states 0 or the largest number, its writer never came back to fill it in."""
    header = file.read(8)
    length = int.from_bytes(header[4:8], "little")
    return 8 + length if 0 < length < 0xFFFFFFF0 else size


def _end_of_segment(file: BinaryIO) -> int:
    at = 0
    for name in (_EBML, _SEGMENT):
        file.seek(at)
        header = file.read(12)
        if header[:4] != name:
            return 0
        width = 9 - header[4].bit_length()
        length = int.from_bytes(header[4 : 4 + width], "big") & ((1 << (7 * width)) - 1)
        if length == (1 << (7 * width)) - 1:  # unknown: a live recording
            return 0
        at += 4 + width + length
    return at
