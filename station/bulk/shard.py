"""One shard from its items to its manifest: what a worker does, whichever executor started it."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from overflight.station.bulk.embedder import Embedder
from overflight.station.bulk.reading import ShardReader
from overflight.station.bulk.records import MOST_ATTEMPTS, SCHEMA, Costs, Item, Settings, Shard, ShardRecord
from overflight.station.bulk.rows import table_of
from overflight.station.bulk.store import MANIFESTS, BulkStore, settings_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_embedders: dict[tuple[str, str, int], Embedder] = {}  # of this process: an engine takes longer to open than a shard


class ShardTask(NamedTuple):
    """What a worker gets. ``careful`` makes it note each item first, after a worker ended on this shard."""

    store: str
    settings: Settings
    shard: Shard
    threads: int
    careful: bool = False


def embed_shard(task: ShardTask, alive: Callable[[], bool] = lambda: True) -> ShardRecord:
    """Embed a shard and write its rows and manifest. Raises OverflightError for what is not an item's fault.

    ``alive`` is asked before each item; where it says no, the process ends: whoever asked for the shard is gone.
    """
    store = BulkStore(task.store)
    embedder = _embedder(task.settings, task.threads)
    began, began_cpu = time.perf_counter(), time.process_time()
    reader = ShardReader(embedder)
    marks = ItemMarks(store, task.shard.number) if task.careful else None

    def before(item: Item) -> bool:
        if not alive():
            os._exit(1)
        return marks is None or marks.begin(item)

    reader.read(task.shard.items, before)
    written = time.perf_counter()
    size, digest = store.write_rows(task.shard.number, table_of(reader.rows, task.settings))
    now = time.perf_counter()
    record = ShardRecord(
        schema=SCHEMA,
        number=task.shard.number,
        settings=settings_key(task.settings),
        rows=len(reader.rows),
        file_bytes=size,
        file_sha256=digest,
        input_bytes=reader.input_bytes,
        done=tuple(reader.done),
        failed=tuple(reader.failed),
        costs=Costs(
            wall_s=now - began,
            cpu_s=time.process_time() - began_cpu,
            read_s=reader.read_s,
            resize_s=embedder.resize_s,
            engine_s=embedder.engine_s,
            write_s=now - written,
            peak_bytes=_peak_bytes(),
        ),
        host=socket.gethostname(),
        placed=sum(place is not None for place in reader.rows.places),
        notes=tuple(f"{note} ({count})" if count > 1 else note for note, count in reader.notes.items()),
    )
    store.write_record(record)
    if marks is not None:
        marks.clear()
    return record


def _peak_bytes() -> int:
    """Return the most memory that this process has held; 0 on Windows, which has no such counter."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # macOS counts in bytes, Linux in kilobytes


class ItemMarks:
    """Which item a worker is reading, on disk: the one that was noted when it ended has ended it."""

    def __init__(self, store: BulkStore, number: int) -> None:
        self._path: Path = store.directory / MANIFESTS / f"{number:06}.reading"
        self._ended: dict[str, int] = {}
        with suppress(OSError, msgspec.DecodeError):
            self._ended = msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])

    def begin(self, item: Item) -> bool:
        """Note an item; False for one on which the worker has ended too often."""
        key = f"{item.source} {item.name} {item.first}"
        ended = self._ended.get(key, 0)
        if ended >= MOST_ATTEMPTS - 1:  # and once before it was noted
            return False
        self._path.write_bytes(msgspec.json.encode({**self._ended, key: ended + 1}))
        return True

    def clear(self) -> None:
        """The shard is done."""
        self._path.unlink(missing_ok=True)


def _embedder(settings: Settings, threads: int) -> Embedder:
    from threadpoolctl import threadpool_limits

    key = (settings_key(settings), settings.bundle, threads)
    if key not in _embedders:
        threadpool_limits(1, "blas")  # of the resize: it shares the core with the engine
        for old in _embedders.values():
            old.close()
        _embedders.clear()
        _embedders[key] = Embedder(settings, threads)
    return _embedders[key]
