"""The sample table of an MP4 file: where a metadata track's samples lie and when they hold."""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from overflight.runtime.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONTAINERS = {b"trak", b"mdia", b"minf", b"stbl"}
_MAX_MOOV_BYTES = 256 << 20
_MAX_SAMPLES = 10_000_000

Sample = tuple[int, int, int, int]


def read_samples(path: Path, file: BinaryIO, entry: bytes) -> list[Sample]:
    """Return (start_ns, length_ns, file offset, size) of each sample of the first track of that sample entry.

    ISO/IEC 14496-12, 8.5 to 8.7. Raises SourceError where the file is not an MP4 or has no such track.
    """
    moov = _moov(path, file)
    try:
        for key, trak in _boxes(moov):
            if key != b"trak":
                continue
            boxes = dict(_leaves(trak))
            if boxes.get(b"stsd", b"")[12:16] == entry:
                return _table(boxes)
    except (struct.error, ValueError, KeyError, ZeroDivisionError) as error:
        raise SourceError(f"{path}: its sample table is damaged ({error!r}); copy the file again") from error
    raise SourceError(f"{path}: no {entry.decode()} track in it; give a file that carries telemetry")


def _moov(path: Path, file: BinaryIO) -> bytes:
    file.seek(0, 2)
    end, place = file.tell(), 0
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        size, key = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack_from(">Q", head, 8)[0], 16
        size = end - place if size == 0 else size
        if size < start or place + size > end:
            break
        if key == b"moov" and size <= _MAX_MOOV_BYTES:
            file.seek(place + start)
            return file.read(size - start)
        place += size
    raise SourceError(f"{path}, byte {place}: not a complete MP4 file (no moov box); copy the file again")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, key = struct.unpack_from(">I4s", data, place)
        if size < 8 or place + size > len(data):
            return
        yield key, data[place + 8 : place + size]
        place += size


def _leaves(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for key, inner in _boxes(data):
        if key in _CONTAINERS:
            yield from _leaves(inner)
        else:
            yield key, inner


def _table(boxes: dict[bytes, bytes]) -> list[Sample]:
    scale = struct.unpack_from(">I", boxes[b"mdhd"], 12 if boxes[b"mdhd"][0] == 0 else 20)[0]
    fixed, count = struct.unpack_from(">II", boxes[b"stsz"], 4)
    if count > _MAX_SAMPLES:
        raise ValueError(f"{count} samples")
    sizes = [fixed] * count if fixed else list(struct.unpack_from(f">{count}I", boxes[b"stsz"], 12))
    lengths: list[int] = []
    for repeat, length in struct.iter_unpack(">II", _entries(boxes[b"stts"], 8)):
        lengths += [length] * min(repeat, count - len(lengths))
    places = _places(boxes, sizes)
    starts = [0, *accumulate(lengths)]
    return [
        (start * 1_000_000_000 // scale, length * 1_000_000_000 // scale, place, size)
        for start, length, place, size in zip(starts, lengths, places, sizes, strict=False)
    ]


def _entries(box: bytes, size: int) -> bytes:
    (count,) = struct.unpack_from(">I", box, 4)
    if 8 + count * size > len(box):
        raise ValueError(f"{count} entries in {len(box)} bytes")
    return box[8 : 8 + count * size]


def _places(boxes: dict[bytes, bytes], sizes: list[int]) -> Iterator[int]:
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
