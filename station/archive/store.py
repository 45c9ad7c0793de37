"""The archive's directory: flights as they were recorded, their segments, and the index over both.

::

    archive/index.sqlite         one row per embedding; made from the flights, can be made again
    archive/flights/<id>/        a copy of each flight: flight.json, journal.sqlite, banks/
    archive/segments/<id>.f16.npy  its embeddings, one row each, of one tower
    archive/review/              decisions of reviewers (station/review)

No path inside is absolute, so the directory can be moved or copied. Files are written under another name, synced and
renamed; the index changes in one transaction. A killed command leaves nothing half added.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import OverflightError, UsageError, missing_extra
from overflight.station.archive.index import open_index
from overflight.station.archive.ingest import Ingested, ingest
from overflight.station.archive.segment import SUFFIX, open_segment

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

LOCK_S = 600.0  # adding a large flight takes minutes; a second `add` waits for the first
_COLUMNS = (
    "id, name, kind, source, source_path, source_sha256, tower, model, width, first, rows, frames, unindexed, "
    "began_utc_ns, ended_utc_ns, added_utc_ns, files"
)


class ArchivedFlight(msgspec.Struct, frozen=True):
    """A flight in the archive.

    ``kind`` is "flight" for a recorded flight, "stills", "video" or "mosaic" for a source that was embedded by
    ``archive add``. ``first`` is the id of its first row and ``rows`` their number; ``unindexed`` counts frames without
    an embedding (shed in flight). ``source_path`` is relative to the archive, absent for a live source. ``files`` maps
    each kept file to its SHA-256. ``began_utc_ns`` and ``ended_utc_ns`` are capture times, absent where unknown.
    """

    id: str
    name: str
    kind: str
    source: str
    source_path: str | None
    source_sha256: str | None
    tower: str
    model: str
    width: int
    first: int
    rows: int
    frames: int
    unindexed: int
    began_utc_ns: int | None
    ended_utc_ns: int | None
    added_utc_ns: int
    files: dict[str, str]


class Archive:
    """An archive directory. Reading is safe while another process adds or removes flights."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    @property
    def index(self) -> Path:
        """The index file."""
        return self.directory / "index.sqlite"

    def flight_directory(self, flight: str) -> Path:
        """Return the directory in which a flight is kept."""
        return self.directory / "flights" / flight

    def segment_path(self, flight: str) -> Path:
        """Return the file of a flight's embeddings."""
        return self.directory / "segments" / f"{flight}{SUFFIX}"

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Open the index for reading: one consistent state, whatever is added meanwhile."""
        with open_index(self.index) as connection:
            yield connection

    def flights(self) -> list[ArchivedFlight]:
        """Return the flights, the earliest first. Raises OverflightError where there is no archive."""
        with self.read() as connection:
            return list(flights_of(connection))

    def flight(self, name: str) -> ArchivedFlight:
        """Return a flight by its id, the beginning of its id, or its name. Raises UsageError for none or several."""
        found = [one for one in self.flights() if name in {one.id, one.name}]
        found = found or [one for one in self.flights() if len(name) >= 4 and one.id.startswith(name)]
        if len(found) != 1:
            raise UsageError(
                f"{name}: {len(found) or 'no'} flights of {self.directory} have this name; run: overflight archive list"
            )
        return found[0]

    def vectors(self, flight: ArchivedFlight) -> NDArray[np.float16]:
        """Map a flight's embeddings float16 ``[rows, width]`` into memory."""
        return open_segment(self.segment_path(flight.id), flight.rows, flight.width)

    def track(self, flight: ArchivedFlight) -> list[tuple[float, float]]:
        """Return the middle of each frame's ground, or where the camera was, as (longitude, latitude)."""
        span = (flight.first, flight.first + flight.rows)
        query = (
            "SELECT lon_deg, lat_deg FROM rows WHERE id >= ? AND id < ? AND tile = 0 AND lon_deg NOTNULL ORDER BY id"
        )
        with self.read() as connection:
            return connection.execute(query, span).fetchall()

    def add(
        self, directory: Path, *, name: str | None = None, kind: str = "flight", identity: str | None = None
    ) -> tuple[ArchivedFlight, bool]:
        """Add a flight directory; return the flight and whether it is new. Adding it again changes nothing.

        ``identity`` is the flight's id, by itself made from its record.

        Raises UsageError for what is not a flight, OverflightError when the archive cannot be written.
        """
        with self.locked():
            try:
                ingested = ingest(self.directory, directory, name=name, kind=kind, identity=identity)
            except OSError as error:
                raise OverflightError(
                    f"{self.directory}: {error.strerror}; nothing was added, free the disk and run the command again"
                ) from error
            with open_index(self.index, create=True) as connection:
                known = _find(connection, ingested.id)
                if known is not None:
                    ingested.discard()
                    return known, False
                return self._insert(connection, ingested), True

    def remove(self, flight: ArchivedFlight) -> None:
        """Remove a flight: first from the index, then its files."""
        with self.locked(), open_index(self.index, create=True) as connection:
            last = flight.first + flight.rows
            connection.execute("DELETE FROM rows WHERE id >= ? AND id < ?", (flight.first, last))
            connection.execute("DELETE FROM places WHERE id >= ? AND id < ?", (flight.first, last))
            connection.execute("DELETE FROM flights WHERE id = ?", (flight.id,))
        shutil.rmtree(self.flight_directory(flight.id), ignore_errors=True)
        self.segment_path(flight.id).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out. Raises OverflightError when another one holds the archive for long."""
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:  # an offline archive of a board has none
            raise missing_extra("filelock", "station") from error
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.directory / ".lock", timeout=LOCK_S)
            with lock:
                yield
        except Timeout as error:
            raise OverflightError(f"{self.directory}: another command writes here; try again later") from error
        except PermissionError as error:
            raise OverflightError(f"{self.directory}: {error.strerror}; name an archive that can be written") from error

    def _insert(self, connection: sqlite3.Connection, ingested: Ingested) -> ArchivedFlight:
        first = connection.execute("SELECT coalesce(max(first + rows), 1) FROM flights").fetchone()[0]
        rows = ingested.rows
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((first + number, *row.values()) for number, row in enumerate(rows)),
        )
        connection.executemany(
            "INSERT INTO places VALUES (?, ?, ?, ?, ?)",
            ((first + number, *row.bounds) for number, row in enumerate(rows) if row.bounds is not None),
        )
        times = [row.utc_ns for row in rows if row.utc_ns is not None]
        flight = ArchivedFlight(
            **ingested.facts,
            first=first,
            rows=len(rows),
            began_utc_ns=min(times, default=None),
            ended_utc_ns=max(times, default=None),
            added_utc_ns=time.time_ns(),
        )
        values = msgspec.structs.asdict(flight)
        values["files"] = msgspec.json.encode(flight.files).decode()
        connection.execute(
            f"INSERT INTO flights ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in values)})",  # noqa: S608
            values,
        )
        ingested.publish()
        return flight


def flights_of(connection: sqlite3.Connection) -> Iterator[ArchivedFlight]:
    """Yield the flights of an index, the earliest first."""
    query = f"SELECT {_COLUMNS} FROM flights ORDER BY coalesce(began_utc_ns, added_utc_ns), id"  # noqa: S608
    for values in connection.execute(query):
        facts = dict(zip(_COLUMNS.split(", "), values, strict=True)) | {"files": msgspec.json.decode(values[-1])}
        yield msgspec.convert(facts, ArchivedFlight)


def _find(connection: sqlite3.Connection, flight: str) -> ArchivedFlight | None:
    return next((one for one in flights_of(connection) if one.id == flight), None)
