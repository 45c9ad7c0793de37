"""Reading flight journals of format 1 and 2, also of a flight that a power cut ended."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight.journal import FORMAT
from overflight.runtime.log import say
from overflight.runtime.records import Glance, Observation, split_skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.jetson.telemetry import DeviceReading
    from overflight.runtime.flight.governor import GovernorChange

_Record = TypeVar("_Record")


class RecordedFrame(NamedTuple):
    """An observation with the unit embeddings that are still there: of the frame ``[D]``, of its tiles ``[T, D]``."""

    observation: Observation
    embedding: NDArray[np.float16] | None
    tile_embeddings: NDArray[np.float16] | None


class Picture(NamedTuple):
    """A small picture of a frame, and why it was kept: "label", "event", "surest", "novel", "interval"."""

    frame: int
    reasons: tuple[str, ...]
    jpeg: bytes


class JournalReader:
    """Reads one journal; ``undecodable`` counts by table the rows that were passed over because they are damaged.

    Raises OverflightError where there is no journal, or one of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.undecodable: Counter[str] = Counter()
        ((version,),) = self._select("PRAGMA user_version")
        self.format = int(version) or 1  # format 1 left the number at 0
        if self.format > FORMAT:
            raise OverflightError(f"{path}: journal format {self.format}, expected at most {FORMAT}; update overflight")

    def observations(self) -> Iterator[Observation]:
        """Yield the observations in order."""
        for (record,) in self._select("SELECT record FROM observations ORDER BY id"):
            yield from self._decoded("observations", self._observation, record)

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the observations in order, with the embeddings that were not shed."""
        tiles = "NULL" if self.format == 1 else "tiles"
        for record, embedding, tile_embeddings in self._select(
            f"SELECT record, embedding, {tiles} FROM observations ORDER BY id"  # noqa: S608
        ):
            for observation in self._decoded("observations", self._observation, record):
                yield RecordedFrame(observation, self._vectors(embedding, 1), self._tiles(tile_embeddings, observation))

    def glances(self) -> Iterator[Glance]:
        """Yield in order what following events needs of the observations whose embedding was not shed."""
        decoder = msgspec.json.Decoder(Glance)
        for (record,) in self._select("SELECT record FROM observations WHERE embedding NOT NULL ORDER BY id"):
            yield from self._decoded("observations", decoder.decode, record)

    def embeddings(self) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Return the frame numbers ``[N]`` and unit embeddings float16 ``[N, D]`` of every frame that has one."""
        rows = list(self._select("SELECT frame, embedding FROM observations WHERE embedding NOT NULL ORDER BY id"))
        usual = Counter(len(vector) for _, vector in rows).most_common(1)
        kept = [(frame, vector) for frame, vector in rows if len(vector) == usual[0][0]]
        self.undecodable["embeddings"] += len(rows) - len(kept)
        if not kept:
            return np.empty(0, np.int64), np.empty((0, 0), np.float16)
        frames = np.array([frame for frame, _ in kept], np.int64)
        return frames, np.frombuffer(b"".join(vector for _, vector in kept), "<f2").reshape(len(kept), -1)

    def events(self) -> Iterator[Event]:
        """Yield the events in order."""
        decoder = msgspec.json.Decoder(Event)
        for (record,) in self._select("SELECT record FROM events ORDER BY id"):
            yield from self._decoded("events", decoder.decode, record)

    def pictures(self) -> Iterator[Picture]:
        """Yield the small pictures in order; a journal of format 1 has none."""
        if self.format == 1:
            return
        for frame, reasons, jpeg in self._select("SELECT frame, reasons, jpeg FROM pictures ORDER BY id"):
            yield Picture(frame, tuple(reasons.split()), jpeg)

    def device(self) -> list[DeviceReading]:
        """Return the device's readings in order; none off the device."""
        from overflight.jetson.telemetry import DeviceReading

        decoder = msgspec.json.Decoder(DeviceReading)
        return [
            reading
            for (record,) in self._select("SELECT record FROM device ORDER BY id")
            for reading in self._decoded("device", decoder.decode, record)
        ]

    def governor(self) -> list[GovernorChange]:
        """Return the changes of the governor in order; a journal from before there was one has none."""
        from overflight.runtime.flight.governor import GovernorChange

        if not list(self._select("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'governor'")):
            return []
        decoder = msgspec.json.Decoder(GovernorChange)
        return [
            change
            for (record,) in self._select("SELECT record FROM governor ORDER BY id")
            for change in self._decoded("governor", decoder.decode, record)
        ]

    def report(self) -> None:
        """Log how many rows were passed over, if any."""
        if found := {table: count for table, count in self.undecodable.items() if count}:
            say("journal rows passed over", path=str(self.path), undecodable=found)

    def _observation(self, record: bytes) -> Observation:
        return split_skipped(msgspec.json.decode(record, type=Observation))

    def _decoded(self, table: str, decode: Callable[[bytes], _Record], record: bytes) -> Iterator[_Record]:
        """Yield the record, or count it and yield nothing."""
        try:
            yield decode(record)
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError):
            self.undecodable[table] += 1

    def _tiles(self, raw: bytes | None, observation: Observation) -> NDArray[np.float16] | None:
        grid = observation.tiles
        return None if grid is None or raw is None else self._vectors(raw, grid.rows * grid.columns)

    def _vectors(self, raw: bytes | None, count: int) -> NDArray[np.float16] | None:
        """Return ``count`` vectors, one as ``[D]``; None, counted, where they are torn or not finite."""
        if raw is None:
            return None
        if not raw or len(raw) % (2 * count) or not np.isfinite(found := np.frombuffer(raw, "<f2")).all():
            self.undecodable["embeddings"] += 1
            return None
        return found if count == 1 else found.reshape(count, -1)

    def _select(self, query: str) -> Iterator[tuple[Any, ...]]:
        if not self.path.is_file():
            raise UsageError(f"{self.path}: no journal here; expected the directory that overflight run left")
        try:
            with closing(_open(self.path)) as connection:
                yield from connection.execute(query)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter in the text of an error itself
            raise OverflightError(f"{self.path}: not a flight journal ({error}); copy the flight again") from error


def read_observations(path: Path) -> Iterator[Observation]:
    """Yield a journal's observations in order; rows that cannot be decoded are counted in the log."""
    reader = JournalReader(path)
    yield from reader.observations()
    reader.report()


def read_embeddings(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Return the frame numbers ``[N]`` and unit embeddings float16 ``[N, D]`` of a journal."""
    return JournalReader(path).embeddings()


def read_events(path: Path) -> Iterator[Event]:
    """Yield a journal's events in order; rows that cannot be decoded are counted in the log."""
    reader = JournalReader(path)
    yield from reader.events()
    reader.report()


def read_pictures(path: Path) -> Iterator[Picture]:
    """Yield a journal's small pictures in order."""
    yield from JournalReader(path).pictures()


def read_device(path: Path) -> list[DeviceReading]:
    """Return the device's readings of a journal, in order; none off the device."""
    return JournalReader(path).device()


def read_governor(path: Path) -> list[GovernorChange]:
    """Return a journal's changes of the governor, in order."""
    return JournalReader(path).governor()


def _open(path: Path) -> sqlite3.Connection:
    """Open a journal; on a disk that cannot be written, SQLite opens it as a file that nobody writes."""
    connection = sqlite3.connect(path, timeout=5.0)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
