"""Damaged outboxes: how they are recognised, and moved aside so that a flight can go on with a new one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = {
    "messages": {"number", "key", "kind", "event", "sequence", "priority", "record", "picture"},
    "pending": {"link", "priority", "message", "handed"},
}


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file itself is damaged, rather than locked, full or gone.

    A UnicodeDecodeError comes from the text of SQLite's own message, which quotes the damaged file.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
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
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return False
            return all(_has_columns(connection, table, columns) for table, columns in _COLUMNS.items())
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return not is_damage(error)  # locked, full or read-only is no damage


def _has_columns(connection: sqlite3.Connection, table: str, columns: set[str]) -> bool:
    found = {str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
    return not found or columns <= found
