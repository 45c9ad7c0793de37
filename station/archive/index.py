"""The archive's index: one SQLite file with a row for every embedding, and an R*Tree of their places."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from overflight.runtime.errors import OverflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
APPLICATION_ID = 0x4F464C41  # "OFLA": what file(1) and SQLite show for an Overflight archive
BUSY_S = 30.0
# A flight's rows have consecutive ids from ``first`` on, in the order of its segment: row = id - first.
# One transaction: a command that is killed in it must not leave a version without its tables.
_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS flights (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL, source_path TEXT,
    source_sha256 TEXT, tower TEXT NOT NULL, model TEXT NOT NULL, width INTEGER NOT NULL, first INTEGER NOT NULL,
    rows INTEGER NOT NULL, frames INTEGER NOT NULL, unindexed INTEGER NOT NULL, began_utc_ns INTEGER,
    ended_utc_ns INTEGER, added_utc_ns INTEGER NOT NULL, files TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, frame INTEGER NOT NULL, tile INTEGER NOT NULL, utc_ns INTEGER, media_ns INTEGER,
    lat_deg REAL, lon_deg REAL, error_m REAL, height_m REAL, label TEXT, name TEXT);
CREATE INDEX IF NOT EXISTS rows_by_label ON rows (label);
CREATE INDEX IF NOT EXISTS rows_by_time ON rows (utc_ns);
CREATE VIRTUAL TABLE IF NOT EXISTS places USING rtree (id, west, east, south, north);
COMMIT;
"""


@contextmanager
def open_index(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the index; one transaction, committed at the end of the block and rolled back by an error.

    Raises UsageError where there is none, OverflightError for a file that is not an index or one of a newer format.
    """
    if not create and not path.is_file():
        raise UsageError(f"{path.parent}: not an archive; make one with: overflight archive add ARCHIVE FLIGHT")
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if create:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'places'").fetchone():
                connection.executescript(_SCHEMA)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not version:
            raise OverflightError(f"{path.parent}: nothing was added here yet; run: overflight archive add")
        if version != FORMAT:
            raise OverflightError(f"{path}: archive format {version}, expected {FORMAT}; update overflight")
        connection.execute("BEGIN IMMEDIATE" if create else "BEGIN")
        yield connection
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise OverflightError(
            f"{path}: not an archive's index ({error}); run: overflight archive check --repair"
        ) from error
    finally:
        connection.close()
