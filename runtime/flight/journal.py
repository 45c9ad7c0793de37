"""The flight journal: a SQLite file that survives a power cut, written by its own thread.

Write-ahead log, two commits a second, each synced to the disk (``synchronous=FULL``): a power cut loses less than the
last second. A disk that fills or fails never stops the flight: rows wait in memory, then are counted as unrecorded.
Within a byte budget, pictures are shed first, then the embeddings of tiles, of frames, and observations; events never.
``docs/formats.md`` describes the file; ``journal_reader.py`` reads it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import Counter, deque
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from overflight.runtime.bounded import identity
from overflight.runtime.durable import sync_directory
from overflight.runtime.errors import OverflightError
from overflight.runtime.event import Event
from overflight.runtime.log import say
from overflight.runtime.records import Observation
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from overflight.jetson.telemetry import DeviceReading
    from overflight.runtime.flight.governor import GovernorChange

FORMAT = 2
APPLICATION_ID = 0x4F464C54  # "OFLT": what file(1) and SQLite show for an Overflight journal
COMMIT_S = 0.5
CLOSE_S = 60.0  # a disk that does not answer for so long at the end of a flight is given up
FILE_MODE = 0o640
RESERVE_BYTES = 32_000_000  # free space that is left to the system: a full root disk can keep a board from starting
SHED_SHARES = (0.6, 0.7, 0.8, 1.0)  # of the budget: from here on no pictures, tiles, embeddings, observations
WAITING_ROWS = 5_000  # minutes of a camera on a disk that does not answer
WAITING_BYTES = 64_000_000
_PICTURES, _TILES, _EMBEDDINGS, _OBSERVATIONS = 1, 2, 3, 4  # the steps of shedding
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS observations (
    id INTEGER PRIMARY KEY, frame INTEGER NOT NULL, captured_ns INTEGER NOT NULL, captured_utc_ns INTEGER,
    media_ns INTEGER, label TEXT, record BLOB NOT NULL, embedding BLOB, tiles BLOB);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, event TEXT NOT NULL, type TEXT NOT NULL, frame INTEGER, utc_ns INTEGER,
    media_ns INTEGER, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, frame INTEGER NOT NULL, reasons TEXT NOT NULL, jpeg BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS device (id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS governor (id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
"""
_COLUMNS = {
    "observations": ("frame", "captured_ns", "captured_utc_ns", "media_ns", "label", "record", "embedding", "tiles"),
    "events": ("event", "type", "frame", "utc_ns", "media_ns", "record"),
    "pictures": ("frame", "reasons", "jpeg"),
    "device": ("utc_ns", "record"),
    "governor": ("utc_ns", "record"),
}
_INSERT = {
    table: f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    for table, columns in _COLUMNS.items()
}
_RECORD, _EMBEDDING, _TILE_EMBEDDINGS = 5, 6, 7  # columns of an observation


class _Row(NamedTuple):
    table: str
    values: tuple[object, ...]

    @property
    def size(self) -> int:
        return sum(len(value) for value in self.values if isinstance(value, bytes))


class Journal:
    """Appends without waiting for the disk; ``unrecorded`` counts what was not written, by kind."""

    def __init__(self, path: Path, budget_bytes: int | None = None) -> None:
        self.path = path
        self._budget_bytes = budget_bytes
        self.unrecorded: Counter[str] = Counter()
        self.trouble: str | None = None
        self._waiting: deque[_Row] = deque()
        self._waiting_bytes = 0
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._written: Counter[str] = Counter()
        try:
            self._connection = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise OverflightError(
                f"{path}: cannot write a journal here ({error}); free the disk or name another folder with --out"
            ) from error
        self.worker = Worker("journal", self._write, self._finish)
        self.worker.start()

    def append(
        self,
        observation: Observation,
        embedding: NDArray[np.float32] | None,
        tile_embeddings: NDArray[np.float32] | None = None,
    ) -> None:
        """Take one observation with the unit embeddings of its frame ``[D]`` and tiles ``[T, D]``, kept in 16 bit."""
        self._put(
            _Row(
                "observations",
                (
                    observation.frame,
                    observation.captured_ns,
                    observation.captured_utc_ns,
                    observation.media_ns,
                    observation.label,
                    msgspec.json.encode(observation),
                    _half(embedding),
                    _half(tile_embeddings),
                ),
            )
        )

    def append_event(self, event: Event) -> None:
        """Take one event; events are never shed."""
        values = (event.id, event.type, event.frame, event.utc_ns, event.media_ns, msgspec.json.encode(event))
        self._put(_Row("events", values))

    def append_picture(self, frame: int, reasons: Sequence[str], jpeg: bytes) -> None:
        """Take a small picture of a frame, and why it is kept."""
        self._put(_Row("pictures", (frame, " ".join(reasons), jpeg)))

    def append_device(self, utc_ns: int, reading: DeviceReading) -> None:
        """Take one reading of the device."""
        self._put(_Row("device", (utc_ns, msgspec.json.encode(reading))))

    def append_governor(self, utc_ns: int, change: GovernorChange) -> None:
        """Take one change of the governor; like events, they are never shed."""
        self._put(_Row("governor", (utc_ns, msgspec.json.encode(change))))

    def close(self) -> None:
        """Write the waiting rows and fold the log into the file; what cannot be written is counted."""
        if not self.worker.close(CLOSE_S):
            self.trouble = f"{self.path}: the disk does not answer"
            self.unrecorded.update(row.table for row in self._waiting)

    def _put(self, row: _Row) -> None:
        with self._guard:
            self._waiting.append(row)
            self._waiting_bytes += row.size
            self._shed()

    def _shed(self) -> None:
        """Keep the waiting rows bounded: pictures go before observations before events, the newest first."""
        while len(self._waiting) > WAITING_ROWS or self._waiting_bytes > WAITING_BYTES:
            tables = [row.table for row in self._waiting]
            wanted = next((table for table in ("pictures", "observations") if table in tables), tables[-1])
            index = len(tables) - 1 - tables[::-1].index(wanted)
            self.unrecorded[wanted] += 1
            self._waiting_bytes -= self._waiting[index].size
            del self._waiting[index]

    def _write(self) -> float:
        """Write what waits, at most once per ``COMMIT_S``."""
        with self._guard:
            rows, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        try:
            self._check_file()
            self._connection = self._connection or self._connect()  # a flight without rows has a journal too
            if rows:
                kept = self._readable(self._within_budget(rows))
                _commit(self._connection, kept)
                self._written.update(row.table for row in kept)
                self.trouble = None
        except (sqlite3.Error, OSError) as error:
            self.trouble = f"{self.path}: {error}"
            self._disconnect()
            self._put_back(rows)
        except Exception:
            self.unrecorded.update(row.table for row in rows)
            raise
        return COMMIT_S

    def _finish(self) -> None:
        self._write()
        if self._waiting:  # the file was lost just now; a new one may take the rows
            self._write()
        self.unrecorded.update(row.table for row in self._waiting)
        self._disconnect()

    def _put_back(self, rows: deque[_Row]) -> None:
        with self._guard:
            self._waiting.extendleft(reversed(rows))
            self._waiting_bytes += sum(row.size for row in rows)
            self._shed()

    def _connect(self) -> sqlite3.Connection:
        descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, FILE_MODE)  # SQLite's other files get the same mode
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        connection = connect(self.path)
        self._file = status.st_dev, status.st_ino  # not the path's: the file may have been deleted in the meantime
        return connection

    def _check_file(self) -> None:
        """Write a file that was deleted in flight again; where that cannot be done, count its rows as unrecorded."""
        if (found := identity(self.path)) == self._file:
            return
        if found is None and self._connection is not None and self._restore(self._connection):
            return
        self.unrecorded.update(self._written)
        lost, self._written = sum(self._written.values()), Counter()
        self._disconnect()
        self._file = found  # counted once; what is there now is opened by the next attempt
        say("journal lost", path=str(self.path), rows=lost)
        raise sqlite3.OperationalError(f"the file was deleted or replaced in flight; {lost} rows are lost")

    def _restore(self, deleted: sqlite3.Connection) -> bool:
        """Copy a deleted journal, which is kept by the system while it is open, to its path; return whether it worked.

        The copy is written under another name and synced before it gets its own, as every file of a flight.
        """
        copy = self.path.with_name(f"{self.path.name}.restored")
        try:
            copy.unlink(missing_ok=True)
            os.close(os.open(copy, os.O_CREAT | os.O_WRONLY, FILE_MODE))
            with closing(sqlite3.connect(copy)) as target:
                deleted.backup(target)
            for suffix in ("-wal", "-shm"):  # a log that outlived its file would be applied to the new one
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            copy.rename(self.path)
            sync_directory(self.path.parent)
            self._disconnect()
            self._connection = self._connect()
        except (sqlite3.Error, OSError):
            return False
        say("journal restored", path=str(self.path), rows=sum(self._written.values()))
        return True

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # a dead disk cannot even be closed cleanly
                connection.close()

    def _within_budget(self, rows: deque[_Row]) -> deque[_Row]:
        """Leave out what the budget or a nearly full disk no longer holds, and count it."""
        level = self._pressure()
        if not level:
            return rows
        kept: deque[_Row] = deque()
        for row in rows:
            if row.table == "pictures" or (row.table == "observations" and level >= _OBSERVATIONS):
                self.unrecorded[row.table] += 1
            elif row.table == "observations":
                kept.append(self._without_embeddings(row, level))
            else:
                kept.append(row)
        return kept

    def _without_embeddings(self, row: _Row, level: int) -> _Row:
        values = list(row.values)
        for what, column, step in (("tiles", _TILE_EMBEDDINGS, _TILES), ("embeddings", _EMBEDDING, _EMBEDDINGS)):
            if level >= step and values[column] is not None:
                self.unrecorded[what] += 1
                values[column] = None
        return row._replace(values=tuple(values))

    def _readable(self, rows: deque[_Row]) -> deque[_Row]:
        """Leave out, and count, every row that a reader could not decode: JSON has no NaN, it becomes null."""
        kept: deque[_Row] = deque()
        for row in rows:
            if row.table == "observations" and (record := self._checked(row.values[_RECORD])) is not None:
                kept.append(row._replace(values=(*row.values[:_RECORD], record, *row.values[_RECORD + 1 :])))
            elif row.table == "events" and not _decodes(row.values[-1], Event):
                self.unrecorded["events"] += 1
            elif row.table != "observations":
                kept.append(row)
        return kept

    def _checked(self, record: object) -> bytes | None:
        """Return an observation's record if a reader can decode it, without pose and place if they are at fault."""
        if isinstance(record, bytes):
            if _decodes(record, Observation):
                return record
            fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
            bare = msgspec.json.encode({name: fields[name] for name in fields if name not in ("pose", "place")})
            if _decodes(bare, Observation):
                self.unrecorded["poses"] += 1
                return bare
        self.unrecorded["observations"] += 1
        self.trouble = f"{self.path}: an observation holds a value that is not finite; it is not recorded"
        return None

    def _pressure(self) -> int:
        """Return how many steps of shedding are needed: 0 where there is room, 4 where only events are kept."""
        try:
            free = shutil.disk_usage(self.path.parent).free
            used = sum(
                path.stat().st_size
                for folder in (self.path.parent.glob(f"{self.path.name}*"), self.path.parent.glob("banks/*"))
                for path in folder
            )
        except OSError:  # the disk itself is gone; the writing will report it
            return 0
        budget = self._budget_bytes
        share = max(RESERVE_BYTES / max(1, free), 0.0 if budget is None else used / max(1, budget))
        return sum(share >= step for step in SHED_SHARES)


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal for writing, created if missing."""
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _half(vectors: NDArray[np.float32] | None) -> bytes | None:
    return None if vectors is None or not len(vectors) else vectors.astype("<f2").tobytes()


def _decodes(record: Any, kind: type[Observation | Event]) -> bool:
    try:
        msgspec.json.decode(record, type=kind)
    except msgspec.DecodeError:
        return False
    return True


def _commit(connection: sqlite3.Connection, rows: Iterable[_Row]) -> None:
    connection.execute("BEGIN")
    try:
        for row in rows:
            connection.execute(_INSERT[row.table], row.values)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
