"""Damaged outboxes: how they are recognised, and moved aside so that a flight can go on with a new one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from overflight.runtime.links.outbox import SCHEMA, lossy

if TYPE_CHECKING:
    from pathlib import Path

# Of a file that lacks what the statements name, as after damage; SQLite has no code of its own for these.
_FOREIGN = ("no such ", "has no column", "Could not decode")
_LAST_NUMBER = 1 << 62  # SQLite's own end is 2^63 - 1: there every new message would fail as on a full disk


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file itself is damaged, rather than locked, full or gone.

    A UnicodeDecodeError comes from the text of SQLite's own message, which quotes the damaged file.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    if isinstance(error, sqlite3.OperationalError):
        return any(words in str(error) for words in _FOREIGN)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
    )


def move_aside_if_damaged(path: Path) -> Path | None:
    """Move an outbox that is damaged, or of another kind, to a name of its own; return that name, or None.

    The caller holds the outbox (see `claim`), and no connection to it is open. Raises OSError where the file cannot be
    moved.
    """
    if not path.is_file() or _is_sound(path):
        return None
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(f"{aside}{ending}")
    return aside


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=2.0)) as connection:
            connection.text_factory = lossy
            # Not quick_check, which passes over indexes: with a damaged one the first message is sent without end.
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return False
            return _objects(connection) <= _own_objects() and _last_number(connection) < _LAST_NUMBER
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return not is_damage(error)  # locked, full or read-only is no damage


def _objects(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """Return every table, index, view and trigger with its definition."""
    return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def _own_objects() -> set[tuple[object, ...]]:
    """Return what an outbox consists of. A file may lack some, which are added; it has no others and no other form."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _objects(connection)


def _last_number(connection: sqlite3.Connection) -> int:
    """Return the highest number that was given to a message."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
        return 0
    numbers = [row[0] for row in connection.execute("SELECT seq FROM sqlite_sequence")]
    return max((number if isinstance(number, int) else _LAST_NUMBER for number in numbers), default=0)
