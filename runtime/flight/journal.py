"""The flight journal: a SQLite file that survives a power cut, written by its own thread.

Write-ahead log, two commits a second, each synced to the disk (``synchronous=FULL``): what a power cut takes is less
than the last second. A disk that fills or fails never stops the flight: rows wait in memory, then are counted as
unrecorded. Within a byte budget, embeddings are shed first, then observations, events never.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from overflight.runtime.errors import OverflightError
from overflight.runtime.event import Event
from overflight.runtime.records import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.jetson.telemetry import DeviceReading

COMMIT_S = 0.5
RESERVE_BYTES = 32_000_000  # free space that is left to the system: a full root disk can keep a board from starting
SHED_EMBEDDINGS = 0.8  # of the budget: what is left then holds an hour of observations, or a day of events
WAITING_ROWS = 5_000  # about 10 MB: minutes of a camera on a disk that does not answer
_SCHEMA = """
CREATE TABLE IF NOT EXISTS observations (
    id INTEGER PRIMARY KEY, frame INTEGER NOT NULL, captured_ns INTEGER NOT NULL, captured_utc_ns INTEGER,
    label TEXT, record BLOB NOT NULL, embedding BLOB);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, event TEXT NOT NULL, type TEXT NOT NULL, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS device (id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
"""
_INSERT = {
    "observations": "INSERT INTO observations (frame, captured_ns, captured_utc_ns, label, record, embedding) "
    "VALUES (?, ?, ?, ?, ?, ?)",
    "events": "INSERT INTO events (event, type, utc_ns, record) VALUES (?, ?, ?, ?)",
    "device": "INSERT INTO device (utc_ns, record) VALUES (?, ?)",
}


class _Row(NamedTuple):
    table: str
    values: tuple[object, ...]


class Journal:
    """Appends without waiting for the disk; ``unrecorded`` counts by table what the disk did not take."""

    def __init__(self, path: Path, budget_bytes: int | None = None) -> None:
        self.path = path
        self._budget_bytes = budget_bytes
        self.unrecorded: Counter[str] = Counter()
        self.trouble: str | None = None
        self._waiting: deque[_Row] = deque()
        self._wake = threading.Condition()
        self._closing = False
        try:
            connect(path).close()
        except sqlite3.Error as error:
            raise OverflightError(
                f"{path}: cannot write a journal here ({error}); free the disk or fly with --out"
            ) from error
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def append(self, observation: Observation, embedding: NDArray[np.float32] | None) -> None:
        """Take one observation, with its unit embedding ``[D]`` to be kept in 16 bit."""
        vector = None if embedding is None else embedding.astype(np.float16).tobytes()
        self._put(
            _Row(
                "observations",
                (
                    observation.frame,
                    observation.captured_ns,
                    observation.captured_utc_ns,
                    observation.label,
                    msgspec.json.encode(observation),
                    vector,
                ),
            )
        )

    def append_event(self, event: Event) -> None:
        """Take one event; events are the last thing that is ever shed."""
        self._put(_Row("events", (event.id, event.type, event.utc_ns, msgspec.json.encode(event))))

    def append_device(self, utc_ns: int, reading: DeviceReading) -> None:
        """Take one reading of the device."""
        self._put(_Row("device", (utc_ns, msgspec.json.encode(reading))))

    def close(self) -> None:
        """Write what waits and fold the log into the file; what cannot be written is counted."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _put(self, row: _Row) -> None:
        with self._wake:
            self._waiting.append(row)
            self._shed()

    def _shed(self) -> None:
        """Keep what waits bounded: observations go before events, the newest first."""
        while len(self._waiting) > WAITING_ROWS:
            index = max((i for i, row in enumerate(self._waiting) if row.table == "observations"), default=-1)
            self.unrecorded[self._waiting[index].table] += 1
            del self._waiting[index]

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        closing = False
        while not closing:
            with self._wake:
                if not self._closing:
                    self._wake.wait(COMMIT_S)
                closing, rows, self._waiting = self._closing, self._waiting, deque()
            if not rows:
                continue
            rows = self._within_budget(rows)
            try:
                connection = connection or connect(self.path)
                _commit(connection, rows)
                self.trouble = None
            except sqlite3.Error as error:
                self.trouble = f"{self.path}: {error}"
                _drop(connection)
                connection = None
                with self._wake:
                    self._waiting.extendleft(reversed(rows))
                    self._shed()
        self.unrecorded.update(row.table for row in self._waiting)
        _drop(connection)

    def _within_budget(self, rows: deque[_Row]) -> deque[_Row]:
        """Leave out what the budget or a nearly full disk no longer holds, and count it."""
        level = self._pressure()
        if not level:
            return rows
        kept: deque[_Row] = deque()
        for row in rows:
            if row.table != "observations":
                kept.append(row)
            elif level == 1:
                self.unrecorded["embeddings"] += row.values[-1] is not None
                kept.append(row._replace(values=(*row.values[:-1], None)))
            else:
                self.unrecorded["observations"] += 1
        return kept

    def _pressure(self) -> int:
        """Return 0 where there is room, 1 where embeddings must go, 2 where only events are still kept."""
        try:
            free = shutil.disk_usage(self.path.parent).free
            used = sum(path.stat().st_size for path in self.path.parent.glob(f"{self.path.name}*"))
        except OSError:  # the disk itself is gone; the writing will say so
            return 0
        budget = self._budget_bytes
        shares = [RESERVE_BYTES / max(1, free), 0.0 if budget is None else used / max(1, budget)]
        return int(max(shares) >= SHED_EMBEDDINGS) + int(max(shares) >= 1.0)


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal for writing, made where there is none."""
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def read_observations(path: Path) -> Iterator[Observation]:
    """Yield what a journal holds, in order; also of a flight whose end was a power cut."""
    decoder = msgspec.json.Decoder(Observation)
    for (record,) in _select(path, "SELECT record FROM observations ORDER BY id"):
        yield decoder.decode(record)


def read_embeddings(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Return the frame numbers ``[N]`` and unit embeddings float16 ``[N, D]`` of a journal."""
    rows = list(_select(path, "SELECT frame, embedding FROM observations WHERE embedding IS NOT NULL ORDER BY id"))
    if not rows:
        return np.empty(0, np.int64), np.empty((0, 0), np.float16)
    frames = np.array([frame for frame, _ in rows], np.int64)
    return frames, np.frombuffer(b"".join(vector for _, vector in rows), np.float16).reshape(len(rows), -1)


def read_sights(path: Path) -> Iterator[tuple[Observation, NDArray[np.float16]]]:
    """Yield each observation that still has its unit embedding float16 ``[D]``, in order."""
    decoder = msgspec.json.Decoder(Observation)
    for record, vector in _select(
        path, "SELECT record, embedding FROM observations WHERE embedding NOT NULL ORDER BY id"
    ):
        yield decoder.decode(record), np.frombuffer(vector, np.float16)


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a journal, in order."""
    decoder = msgspec.json.Decoder(Event)
    for (record,) in _select(path, "SELECT record FROM events ORDER BY id"):
        yield decoder.decode(record)


def read_device(path: Path) -> list[DeviceReading]:
    """Return the device's readings of a journal, in order; none off the device."""
    from overflight.jetson.telemetry import DeviceReading

    decoder = msgspec.json.Decoder(DeviceReading)
    return [decoder.decode(record) for (record,) in _select(path, "SELECT record FROM device ORDER BY id")]


def _select(path: Path, query: str) -> Iterator[tuple[bytes, ...]]:
    if not path.is_file():
        raise OverflightError(f"{path}: no journal here; expected the directory that overflight run left")
    connection = sqlite3.connect(path, timeout=5.0)
    try:
        yield from connection.execute(query)
    except sqlite3.DatabaseError as error:
        raise OverflightError(f"{path}: not a flight journal ({error}); copy the flight again") from error
    finally:
        connection.close()


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


def _drop(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with suppress(sqlite3.Error):  # a dead disk cannot even be left politely
            connection.close()
