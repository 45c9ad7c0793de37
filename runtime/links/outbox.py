"""The outbox: what waits for each link, in a SQLite file that outlives the process.

Write-ahead log with ``synchronous=NORMAL``: once ``put`` has returned, a killed process loses nothing; the log is then
synced to the disk by another thread, so that the loop that flies never waits for it, and a power cut takes at most
what the last milliseconds brought.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.links.message import Message, MessageKind

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WAITING = 10_000  # messages for one link: a day of an event every ten seconds
MAX_THUMBNAILS = 1_000  # 8 MB at most
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, event TEXT NOT NULL,
    sequence INTEGER NOT NULL, priority INTEGER NOT NULL, record BLOB NOT NULL, picture BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pending (
    link TEXT NOT NULL, priority INTEGER NOT NULL, message INTEGER NOT NULL REFERENCES messages (number),
    handed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (link, priority, message)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_message ON pending (message);
CREATE INDEX IF NOT EXISTS messages_event ON messages (event, sequence);
"""
# What goes first, and what is shed last: beginnings and ends, then changes, then pictures.
_BEGIN_OR_END, _CHANGE, _THUMBNAIL = 0, 1, 2


class Outbox:
    """One thread's view of the outbox file; each thread opens its own.

    The one ``in_flight_loop`` waits for no lock longer than 0.2 s and leaves the care of the file to the others.
    """

    def __init__(self, path: Path, *, in_flight_loop: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=0.2 if in_flight_loop else 2.0, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
            if in_flight_loop:
                self._connection.execute("PRAGMA wal_autocheckpoint=0")  # folding the log in waits for the disk
        except (sqlite3.Error, OSError) as error:
            raise OverflightError(f"{path}: cannot keep an outbox ({error}); name another with --outbox") from error

    def put(self, event: Event, picture: bytes, links: Sequence[str]) -> dict[str, int]:
        """Keep an event, and its picture if any, for each link; return what had to be shed for it, by link.

        Putting a message again that still waits changes nothing.
        """
        record = msgspec.json.encode(event)
        priority = _CHANGE if event.type == "change" else _BEGIN_OR_END
        rows: list[tuple[str, MessageKind, int, bytes]] = [(event.key, "event", priority, b"")]
        if picture:
            rows.append((f"{event.key}/thumbnail", "thumbnail", _THUMBNAIL, picture))
        with self._transaction():
            for key, kind, rank, content in rows:
                done = self._connection.execute(
                    "INSERT OR IGNORE INTO messages (key, kind, event, sequence, priority, record, picture) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (key, kind, event.id, event.sequence, rank, record, content),
                )
                if done.rowcount:
                    self._connection.executemany(
                        "INSERT INTO pending (link, priority, message) VALUES (?, ?, ?)",
                        [(link, rank, done.lastrowid) for link in links],
                    )
            return {link: shed for link in links if (shed := self._shed(link))}

    def next(self, link: str) -> Message | None:
        """Return what goes next over a link: beginnings and ends, changes, pictures; each in order."""
        row = self._connection.execute(
            "SELECT m.number, m.kind, m.record, m.picture FROM pending p JOIN messages m ON m.number = p.message "
            "WHERE p.link = ? AND NOT p.handed ORDER BY p.priority, p.message LIMIT 1",
            (link,),
        ).fetchone()
        return row and Message(row[0], row[1], msgspec.json.decode(row[2], type=Event), row[3])

    def overtaken(self, link: str, message: Message) -> bool:
        """Say whether a later step of the same event waits for the link too."""
        return (
            self._connection.execute(
                "SELECT 1 FROM messages m JOIN pending p ON p.message = m.number AND p.link = ? AND NOT p.handed "
                "WHERE m.event = ? AND m.kind = 'event' AND m.sequence > ? LIMIT 1",
                (link, message.event.id, message.event.sequence),
            ).fetchone()
            is not None
        )

    def done(self, link: str, message: Message) -> None:
        """Let a message go that the link has delivered or given up."""
        with self._transaction():
            self._forget([(link, message.number)])

    def hand_over(self, link: str, message: Message) -> None:
        """Set a message aside that the link has passed on, though the other side may not have it yet."""
        query = "UPDATE pending SET handed = 1 WHERE link = ? AND message = ?"
        self._connection.execute(query, (link, message.number))

    def take_back(self, link: str) -> int:
        """Let everything wait again that was handed over and not yet done; return how much that was."""
        return self._connection.execute("UPDATE pending SET handed = 0 WHERE link = ? AND handed", (link,)).rowcount

    def waiting(self, link: str) -> int:
        """Count what waits for a link."""
        query = "SELECT count(*) FROM pending WHERE link = ? AND NOT handed"
        return int(self._connection.execute(query, (link,)).fetchone()[0])

    def sync(self) -> None:
        """Wait until the disk holds everything that was put."""
        log = self.path.with_name(self.path.name + "-wal")
        try:
            descriptor = os.open(log, os.O_RDONLY)
        except FileNotFoundError:
            return  # folded into the file, which SQLite syncs itself
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def _shed(self, link: str) -> int:
        """Drop what is too much for a link: pictures first, then changes, then the oldest."""
        numbers: list[int] = []
        for extra, limit in (("AND priority = 2", MAX_THUMBNAILS), ("", MAX_WAITING)):
            (count,) = self._connection.execute(
                f"SELECT count(*) FROM pending WHERE link = ? AND NOT handed {extra}",  # noqa: S608 - one of two constants
                (link,),
            ).fetchone()
            numbers += [
                number
                for (number,) in self._connection.execute(
                    f"SELECT message FROM pending WHERE link = ? AND NOT handed {extra} "  # noqa: S608 - one of two constants
                    "ORDER BY priority DESC, message LIMIT ?",
                    (link, max(0, count - limit)),
                )
            ]
        self._forget([(link, number) for number in dict.fromkeys(numbers)])
        return len(set(numbers))

    def _forget(self, pairs: Sequence[tuple[str, int]]) -> None:
        self._connection.executemany("DELETE FROM pending WHERE link = ? AND message = ?", pairs)
        self._connection.executemany(
            "DELETE FROM messages WHERE number = ? AND NOT EXISTS (SELECT 1 FROM pending WHERE message = number)",
            [(number,) for _, number in pairs],
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)


class _Transaction:
    """BEGIN IMMEDIATE, so that two threads wait for each other instead of failing half way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def claim(path: Path) -> TextIO:
    """Claim an outbox for this process, until the returned file is closed or the process dies.

    Raises UsageError where another flight uses it: two would send everything twice.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{path}.lock").open("w")  # noqa: SIM115 - held for the flight
    except OSError as error:
        raise OverflightError(f"{path}: {error.strerror}; name an outbox that can be written with --outbox") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(f"{path}: another flight sends from this outbox; name another with --outbox") from error
    return lock
