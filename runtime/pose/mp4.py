"""The sample table of an MP4 file: where a metadata track's samples lie and when they hold."""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from overflight.runtime.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TABLE = (b"mdia", b"minf", b"stbl")  # the path from a track to its sample table
MAX_MOOV_BYTES = 32 << 20  # twelve hours of video at 60 frames a second take 25 MB
MAX_SAMPLES = 200_000  # a camera writes one sample of metadata a second: two days
MAX_BOXES = 256  # in one box, and at the top of the file

Sample = tuple[int, int, int, int]


def read_samples(path: Path, file: BinaryIO, entry: bytes) -> list[Sample]:
    """Return (start_ns, length_ns, file offset, size) of each sample of the first track of that sample entry.

    ISO/IEC 14496-12, 8.5 to 8.7. Raises SourceError where the file is not an MP4 or has no such track.
    """
    moov, size = _moov(path, file)
    try:
        for key, trak in _boxes(memoryview(moov)):
            if key != b"trak":
                continue
            boxes = _leaves(trak)
            if bytes(boxes.get(b"stsd", b"")[12:16]) == entry:
                return _table(boxes, size)
    except (struct.error, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise SourceError(f"{path}: its sample table is damaged ({error!r}); copy the file again") from error
    raise SourceError(f"{path}: no {entry.decode()} track in it; give a file that carries telemetry")


def _moov(path: Path, file: BinaryIO) -> tuple[bytes, int]:
    """Return the movie box and the size of the file."""
    file.seek(0, 2)
    end, place = file.tell(), 0
    for _ in range(MAX_BOXES):
        if place + 8 > end:
            break
        file.seek(place)
        head = file.read(16)
        size, key = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack_from(">Q", head, 8)[0], 16
        size = end - place if size == 0 else size
        if size < start or place + size > end:
            break
        if key == b"moov" and size <= MAX_MOOV_BYTES:
            file.seek(place + start)
            return file.read(size - start), end
        place += size
    raise SourceError(f"{path}, byte {place}: not a complete MP4 file (no moov box); copy the file again")


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = 0
    for _ in range(MAX_BOXES):
        if place + 8 > len(data):
            return
        size, key = struct.unpack_from(">I4s", data, place)
        if size < 8 or place + size > len(data):
            return
        yield key, data[place + 8 : place + size]
        place += size


def _leaves(trak: memoryview) -> dict[bytes, memoryview]:
    """Return the boxes next to the path to a track's sample table, and those of the table itself."""
    found: dict[bytes, memoryview] = {}
    inner = trak
    for wanted in (*_TABLE, None):
        boxes = dict(_boxes(inner))
        found |= boxes
        if wanted is None or wanted not in boxes:
            break
        inner = boxes[wanted]
    return found


def _table(boxes: dict[bytes, memoryview], file_size: int) -> list[Sample]:
    scale = struct.unpack_from(">I", boxes[b"mdhd"], 12 if boxes[b"mdhd"][0] == 0 else 20)[0]
    sizes = _sizes(boxes[b"stsz"], file_size)
    lengths: list[int] = []
    for repeat, length in struct.iter_unpack(">II", _entries(boxes[b"stts"], 8)):
        lengths += [length] * min(repeat, len(sizes) - len(lengths))
    places = _places(boxes, sizes)
    starts = [0, *accumulate(lengths)]
    return [
        (start * 1_000_000_000 // scale, length * 1_000_000_000 // scale, place, size)
        for start, length, place, size in zip(starts, lengths, places, sizes, strict=False)
    ]


def _sizes(box: memoryview, file_size: int) -> list[int]:
    """Return the size of each sample; together they cannot be larger than the file that holds them."""
    fixed, count = struct.unpack_from(">II", box, 4)
    if count > MAX_SAMPLES or fixed * count > file_size:
        raise ValueError(f"{count} samples of {fixed} bytes in {file_size} bytes")
    sizes = [fixed] * count if fixed else list(struct.unpack_from(f">{count}I", box, 12))
    if sum(sizes) > file_size:
        raise ValueError(f"{count} samples of {sum(sizes)} bytes in {file_size} bytes")
    return sizes


def _entries(box: memoryview, size: int) -> memoryview:
    (count,) = struct.unpack_from(">I", box, 4)
    if 8 + count * size > len(box):
        raise ValueError(f"{count} entries in {len(box)} bytes")
    return box[8 : 8 + count * size]


def _places(boxes: dict[bytes, memoryview], sizes: list[int]) -> Iterator[int]:
    """Yield each sample's file offset: chunk by chunk, samples back to back inside."""
    wide = b"co64" in boxes
    chunks = struct.iter_unpack(">Q" if wide else ">I", _entries(boxes[b"co64" if wide else b"stco"], 8 if wide else 4))
    runs = [(first, each) for first, each, _ in struct.iter_unpack(">III", _entries(boxes[b"stsc"], 12))]
    sample, run = 0, 0
    for chunk, (offset,) in enumerate(chunks, start=1):
        place = offset
        while run + 1 < len(runs) and runs[run + 1][0] <= chunk:
            run += 1
        for _ in range(runs[run][1] if runs else 0):
            if sample == len(sizes):
                return
            yield place
            place += sizes[sample]
            sample += 1
