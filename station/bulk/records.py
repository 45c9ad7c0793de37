"""The records of a bulk store: its settings, its items, its shards, and what became of each shard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from overflight.runtime.paths import printable

SCHEMA = 1
Kind = Literal["still", "windows", "video", "flight"]
_QUOTED = "bytes:"  # of a path that is not UTF-8: what follows is quoted as in a URL
MOST_ATTEMPTS = 3  # for one item, and for a shard whose worker ended without an answer


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides the rows: the same settings give the same rows on every executor.

    ``engine_sha256`` is the graph or plan that runs. ``batch`` is the number of frames in one call of the engine.
    ``window_px`` and ``gsd_m`` say how mosaics are cut, ``fps`` how many pictures a second of a video are embedded
    (0: all of them). ``half`` stores the embeddings in 16 bits.
    """

    schema: int
    bundle: str
    bundle_sha256: str
    tower: str
    model: str
    width: int
    side: int
    target: str
    precision: str
    engine_sha256: str
    batch: int
    shard_rows: int
    window_px: int | None = None
    gsd_m: float | None = None
    fps: float = 1.0
    half: bool = False


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file, or some windows of one mosaic: what is read at once and fails alone.

    ``name`` is unique within ``source``, the source as it was given. ``where`` is an absolute path as ``stored_path``
    writes it, or a URL. ``count`` is the expected number of rows, 0 where only reading can tell. ``first`` is the first
    window, and ``window_px`` their side in pixels. ``sha256`` is known beforehand for a mosaic, which many items share.
    """

    kind: Kind
    source: str
    name: str
    where: str
    bytes: int = 0
    mtime_ns: int = 0
    count: int = 1
    first: int = 0
    window_px: int = 0
    sha256: str = ""

    @property
    def path(self) -> Path:
        """The file, of an item that is no URL."""
        if self.where.startswith(_QUOTED):
            return Path(os.fsdecode(unquote_to_bytes(self.where.removeprefix(_QUOTED))))
        return Path(self.where)


def stored_path(path: Path) -> str:
    """Return an absolute path as JSON can hold it: as it is, or quoted where it is not UTF-8."""
    text = str(path.resolve())
    return text if printable(text) == text else _QUOTED + quote_from_bytes(os.fsencode(text))


class Shard(msgspec.Struct, frozen=True):
    """Items that are embedded together and written as one Parquet file."""

    number: int
    items: tuple[Item, ...]


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the rows of one item are: from row ``first`` of the shard's file, in its row group ``row_group``."""

    name: str
    sha256: str
    rows: int
    row_group: int
    first: int


class Failed(msgspec.Struct, frozen=True):
    """An item that could not be embedded, or not whole; ``attempts`` says how often it was tried."""

    source: str
    name: str
    reason: str
    attempts: int
    rows: int = 0


class Costs(msgspec.Struct, frozen=True):
    """What a shard took, in seconds: wall clock, processor, and the parts of the wall clock that are known.

    ``peak_bytes`` is the memory of its process; 0 where the system does not say.
    """

    wall_s: float
    cpu_s: float
    read_s: float
    resize_s: float
    engine_s: float
    write_s: float
    peak_bytes: int


class ShardRecord(msgspec.Struct, frozen=True):
    """The manifest of a finished shard. It is written after the Parquet file, whose size and SHA-256 it states."""

    schema: int
    number: int
    settings: str
    rows: int
    file_bytes: int
    file_sha256: str
    input_bytes: int
    done: tuple[Done, ...]
    failed: tuple[Failed, ...]
    costs: Costs
    host: str
    placed: int = 0
    notes: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """What the listing left out: files that it refused, files of other kinds by suffix, and what it assumed."""

    failed: tuple[Failed, ...] = ()
    passed_over: dict[str, int] = {}
    notes: tuple[str, ...] = ()
