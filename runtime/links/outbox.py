"""The outbox: what waits for each link, in a SQLite file that outlives the process.

Write-ahead log with ``synchronous=NORMAL``: once ``put`` has returned, a killed process loses nothing. Another thread
then syncs the log to the disk, so that the loop that flies never waits for it; a power cut loses at most the messages
of the last milliseconds. A file that is damaged is moved aside and a new one is begun, before the flight and in it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import msgspec

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.json_input import decode_json
from overflight.runtime.links.message import Message, MessageKind
from overflight.runtime.locks import lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_WAITING = 10_000  # messages for one link: a day of an event every ten seconds
MAX_THUMBNAILS = 1_000  # 8 MB at most
# An outbox whose definitions differ in a single sign is moved aside: see outbox_repair.
SCHEMA = """
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


class Unreadable(Exception):  # noqa: N818 - a state of one row, which is given up
    """A message that cannot be decoded, as of an older version or after damage."""

    def __init__(self, number: int, kind: str) -> None:
        super().__init__(f"message {number} in the outbox cannot be read")
        self.number = number
        self.kind = kind


class Kept(NamedTuple):
    """How many messages were added for a link, and how many had to be removed for them."""

    added: int
    shed: int


class Outbox:
    """One thread's view of the outbox file; each thread opens its own.

    With ``in_flight_loop`` it waits for a lock for at most 0.2 s and leaves checkpoints to the other threads.
    """

    def __init__(self, path: Path, *, in_flight_loop: bool = False) -> None:
        self.path = path
        self._in_flight_loop = in_flight_loop
        self._patience_s = 0.2 if in_flight_loop else 2.0
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._use():
                pass
        except (sqlite3.Error, OSError) as error:
            raise OverflightError(f"{path}: cannot keep an outbox ({error}); name another with --outbox") from error

    def put(self, event: Event, picture: bytes, links: Sequence[str]) -> dict[str, Kept]:
        """Keep an event, and its picture if any, for each link; return what was kept and shed, by link.

        Putting a message again that still waits changes nothing.
        """
        record = msgspec.json.encode(event)
        priority = _CHANGE if event.type == "change" else _BEGIN_OR_END
        rows: list[tuple[str, MessageKind, int, bytes]] = [(event.key, "event", priority, b"")]
        if picture:
            rows.append((f"{event.key}/thumbnail", "thumbnail", _THUMBNAIL, picture))
        added = 0
        with self._use() as connection, _Transaction(connection):
            for key, kind, rank, content in rows:
                done = connection.execute(
                    "INSERT OR IGNORE INTO messages (key, kind, event, sequence, priority, record, picture) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (key, kind, event.id, event.sequence, rank, record, content),
                )
                if done.rowcount:
                    added += 1
                    connection.executemany(
                        "INSERT INTO pending (link, priority, message) VALUES (?, ?, ?)",
                        [(link, rank, done.lastrowid) for link in links],
                    )
            return {link: Kept(added, _shed(connection, link)) for link in links}

    def next(self, link: str) -> Message | None:
        """Return what goes next over a link: beginnings and ends, changes, pictures; each in order.

        Raises Unreadable for a message that cannot be decoded; ``forget`` gives it up.
        """
        with self._use() as connection:
            row = connection.execute(
                "SELECT m.number, m.kind, m.record, m.picture FROM pending p JOIN messages m ON m.number = p.message "
                "WHERE p.link = ? AND NOT p.handed ORDER BY p.priority, p.message LIMIT 1",
                (link,),
            ).fetchone()
        if row is None:
            return None
        number, kind, record, picture = row
        if kind not in ("event", "thumbnail") or not isinstance(picture, bytes):
            raise Unreadable(number, kind if kind in ("event", "thumbnail") else "message")
        try:
            return Message(number, kind, decode_json(record, type=Event), picture)
        except (msgspec.DecodeError, TypeError) as error:
            raise Unreadable(number, kind) from error

    def overtaken(self, link: str, message: Message) -> bool:
        """Say whether a later step of the same event waits for the link too."""
        with self._use() as connection:
            found = connection.execute(
                "SELECT 1 FROM messages m JOIN pending p ON p.message = m.number AND p.link = ? AND NOT p.handed "
                "WHERE m.event = ? AND m.kind = 'event' AND m.sequence > ? LIMIT 1",
                (link, message.event.id, message.event.sequence),
            ).fetchone()
        return found is not None

    def done(self, link: str, message: Message) -> None:
        """Remove a message that the link has delivered or given up."""
        self.forget(link, message.number)

    def forget(self, link: str, number: int) -> None:
        """Remove a message by its number."""
        with self._use() as connection, _Transaction(connection):
            _forget(connection, [(link, number)])

    def hand_over(self, link: str, message: Message) -> None:
        """Mark a message as passed on by the link, though the other side may not have it yet."""
        query = "UPDATE pending SET handed = 1 WHERE link = ? AND message = ?"
        with self._use() as connection:
            connection.execute(query, (link, message.number))

    def take_back(self, link: str) -> int:
        """Put everything back into the queue that was handed over and not yet done; return how much that was."""
        with self._use() as connection:
            done = connection.execute("UPDATE pending SET handed = 0 WHERE link = ? AND handed", (link,))
            return done.rowcount

    def waiting(self, link: str) -> int:
        """Count what waits for a link."""
        query = "SELECT count(*) FROM pending WHERE link = ? AND NOT handed"
        with self._use() as connection:
            return int(connection.execute(query, (link,)).fetchone()[0])

    def copy_to(self, path: Path) -> None:
        """Copy everything to another file, also from a file that was deleted while it was open."""
        with self._use() as connection, closing(sqlite3.connect(path)) as copy:
            connection.backup(copy)

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

    @contextmanager
    def released(self) -> Iterator[None]:
        """Close the file while the body runs, so that it can be moved; it is opened again by the next use."""
        with self._lock:
            self.close()
            yield

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, opened if need be, to one thread at a time."""
        if not self._lock.acquire(timeout=self._patience_s):
            raise sqlite3.OperationalError("the outbox is being replaced")
        try:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        finally:
            self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self._patience_s, isolation_level=None, check_same_thread=False)
        connection.text_factory = lossy  # damaged text makes one message unreadable, not the link silent
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(SCHEMA)
            if self._in_flight_loop:
                connection.execute("PRAGMA wal_autocheckpoint=0")  # a checkpoint waits for the disk
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def lossy(raw: bytes) -> str:
    """Decode text as SQLite gives it, with a mark for each byte that is not UTF-8."""
    return raw.decode("utf-8", "replace")


def _shed(connection: sqlite3.Connection, link: str) -> int:
    """Remove what is too much for a link: pictures first, then changes, then the oldest."""
    numbers: list[int] = []
    for extra, limit in (("AND priority = 2", MAX_THUMBNAILS), ("", MAX_WAITING)):
        (count,) = connection.execute(
            f"SELECT count(*) FROM pending WHERE link = ? AND NOT handed {extra}",  # noqa: S608 - one of two constants
            (link,),
        ).fetchone()
        numbers += [
            number
            for (number,) in connection.execute(
                f"SELECT message FROM pending WHERE link = ? AND NOT handed {extra} "  # noqa: S608 - one of two constants
                "ORDER BY priority DESC, message LIMIT ?",
                (link, max(0, count - limit)),
            )
        ]
    _forget(connection, [(link, number) for number in dict.fromkeys(numbers)])
    return len(set(numbers))


def _forget(connection: sqlite3.Connection, pairs: Sequence[tuple[str, int]]) -> None:
    connection.executemany("DELETE FROM pending WHERE link = ? AND message = ?", pairs)
    connection.executemany(
        "DELETE FROM messages WHERE number = ? AND NOT EXISTS (SELECT 1 FROM pending WHERE message = number)",
        [(number,) for _, number in pairs],
    )


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
        lock_file(lock.fileno(), wait=False)
    except OSError as error:
        lock.close()
        raise UsageError(f"{path}: another flight sends from this outbox; name another with --outbox") from error
    return lock
