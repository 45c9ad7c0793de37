"""Taking a flight into the archive: a checked copy, its segment, and the rows of its index."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.directory import BANKS, JOURNAL, RECORD, read_record
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.geodesy import beside
from overflight.runtime.paths import printable
from overflight.station.archive.places import place_of, tile_places
from overflight.station.archive.segment import SUFFIX, SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.records import FlightRecord, Observation

STAGING = ".adding-"


class IndexRow(NamedTuple):
    """One embedding: of a whole frame (``tile`` 0) or of tile 1, 2, … row by row. ``bounds`` is its box of places."""

    frame: int
    tile: int
    utc_ns: int | None
    media_ns: int | None
    lat_deg: float | None
    lon_deg: float | None
    error_m: float | None
    height_m: float | None
    label: str | None
    name: str | None
    bounds: tuple[float, float, float, float] | None = None

    def values(self) -> tuple[object, ...]:
        """Return the columns of the table ``rows``."""
        return tuple(self[:10])


@dataclass
class Ingested:
    """A flight staged next to its final place; ``publish`` renames it there, ``discard`` removes it."""

    id: str
    facts: dict[str, Any]
    rows: list[IndexRow]
    staging: Path
    archive: Path

    def publish(self) -> None:
        """Move the copy and the segment to their places; what an interrupted command left there is replaced."""
        flights, segments = self.archive / "flights", self.archive / "segments"
        for folder in (flights, segments):
            folder.mkdir(exist_ok=True)
        target = flights / self.id
        if target.exists():
            shutil.rmtree(target)
        (self.staging / "flight").rename(target)
        (self.staging / f"segment{SUFFIX}").replace(segments / f"{self.id}{SUFFIX}")
        for folder in (flights, segments):
            sync_directory(folder)
        self.discard()

    def discard(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self.staging, ignore_errors=True)


def ingest(archive: Path, directory: Path, *, name: str | None, kind: str, identity: str | None = None) -> Ingested:
    """Copy a flight into a staging folder of the archive and read its rows. Raises UsageError for what is no flight."""
    record = read_record(directory)
    if record.ended_utc_ns is None and _is_flown(directory):
        raise UsageError(f"{directory}: the flight is still going on; add it when it has ended")
    for left in archive.glob(f"{STAGING}*"):  # of commands that were killed; the caller holds the lock
        shutil.rmtree(left, ignore_errors=True)
    staging = archive / f"{STAGING}{uuid.uuid4().hex[:8]}"
    copy = staging / "flight"
    copy.mkdir(parents=True)
    try:
        _copy_flight(directory, copy)
        tower, model = _tower_of(copy, record)
        reader = JournalReader(copy / JOURNAL)
        segment = staging / f"segment{SUFFIX}"
        rows, width, frames, unindexed = write_rows(reader, segment)
        facts = {
            "id": identity or flight_id(record),
            "name": printable(name or directory.resolve().name),
            "kind": kind,
            "source": record.source,
            "source_path": _relative_source(record.source, archive),
            "source_sha256": _source_hash(record.source),
            "tower": tower,
            "model": model,
            "width": width,
            "frames": frames,
            "unindexed": unindexed,
            "files": {path: hash_file(copy / path) for path in _kept_files(copy)} | {"segment": hash_file(segment)},
        }
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Ingested(identity or flight_id(record), facts, rows, staging, archive)


def flight_id(record: FlightRecord) -> str:
    """Return the id of a flight: the same for every copy of its directory, 16 hex digits."""
    facts = (record.host, record.source, str(record.started_utc_ns), record.bundle, record.engine_sha256)
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


def sync_directory(path: Path) -> None:
    """Sync a directory, so that a rename in it survives a power cut; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_flown(directory: Path) -> bool:
    """Whether the journal is open in another process: SQLite keeps its write-ahead log while it is."""
    journal = directory / JOURNAL
    log = journal.with_name(f"{JOURNAL}-wal")
    if not log.is_file() or not log.stat().st_size:
        return False
    with closing(sqlite3.connect(journal, timeout=0.1, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False


def _copy_flight(directory: Path, copy: Path) -> None:
    """Copy the record, the banks, and the journal with what its write-ahead log holds."""
    shutil.copy2(directory / RECORD, copy / RECORD)
    journal = directory / JOURNAL
    if not journal.is_file():
        raise UsageError(f"{directory}: no {JOURNAL}; copy the flight whole, its embeddings are in the journal")
    try:
        with (
            closing(sqlite3.connect(journal, timeout=5.0)) as source,
            closing(sqlite3.connect(copy / JOURNAL)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        raise OverflightError(f"{journal}: not a flight journal ({error}); copy the flight again") from error
    if (directory / BANKS).is_dir():
        shutil.copytree(directory / BANKS, copy / BANKS)


def _kept_files(copy: Path) -> list[str]:
    return sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())


def _tower_of(copy: Path, record: FlightRecord) -> tuple[str, str]:
    """Return the tower that made the embeddings: the one that the flight's bank is bound to."""
    path = copy / BANKS / f"{record.bank_sha256[:16]}.safetensors"
    try:
        header = LabelBank.load(path).header
    except OverflightError as error:
        raise UsageError(
            f"{copy.parent}: the flight's label bank is missing or damaged ({error}), so its tower is unknown; "
            "copy the flight whole"
        ) from error
    return header.tower, header.model


def write_rows(reader: JournalReader, path: Path) -> tuple[list[IndexRow], int, int, int]:
    """Write every embedding of a journal; return the rows, their width, the frames and those without an embedding."""
    rows: list[IndexRow] = []
    writer: SegmentWriter | None = None
    frames = unindexed = 0
    try:
        for observation, embedding, tiles in reader.frames():
            frames += 1
            if embedding is None:
                unindexed += 1
                continue
            writer = writer or SegmentWriter(path, len(embedding))
            writer.append(embedding)
            rows.append(_row(observation, 0, observation.label, place_of(observation)))
            if tiles is not None and observation.tiles is not None:
                writer.append(tiles)
                rows += _tile_rows(observation)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise UsageError(
            f"{reader.path.parent}: no embeddings among {frames} frames (shed by the journal's budget); "
            "fly the source again: overflight run SOURCE"
        )
    return rows, writer.width, frames, unindexed


def _row(observation: Observation, tile: int, label: str | None, place: Place | None) -> IndexRow:
    pose = observation.pose
    lat_deg, lon_deg = (
        (place.lat_deg, place.lon_deg) if place else (pose.lat_deg, pose.lon_deg) if pose else (None, None)
    )
    return IndexRow(
        observation.frame,
        tile,
        observation.utc_ns,
        observation.media_ns,
        lat_deg,
        lon_deg,
        place.error_m if place and observation.place is not None else None,
        pose.height_m if pose else None,
        label,
        observation.name,
        None if lat_deg is None or lon_deg is None else _bounds(place, lat_deg, lon_deg),
    )


def _bounds(place: Place | None, lat_deg: float, lon_deg: float) -> tuple[float, float, float, float]:
    """Return west, east, south and north; east is beyond 180° where the ground lies on the date line."""
    ring = place.footprint if place is not None and place.footprint else ((lon_deg, lat_deg),)
    lons, lats = [beside(lon, ring[0][0]) for lon, _ in ring], [lat for _, lat in ring]
    turn = beside(min(lons), 0.0) - min(lons)
    return min(lons) + turn, max(lons) + turn, min(lats), max(lats)


def _tile_rows(observation: Observation) -> Iterator[IndexRow]:
    """Yield a row for each tile, placed in its part of the frame's footprint."""
    grid = observation.tiles
    assert grid is not None
    places = tile_places(place_of(observation), grid.rows, grid.columns)
    for number, (label, place) in enumerate(zip(grid.labels, places, strict=True), start=1):
        yield _row(observation, number, label, place)


def _relative_source(source: str, archive: Path) -> str | None:
    path = Path(source).expanduser()
    if "://" in source or not path.exists():
        return None
    try:
        return Path(os.path.relpath(path.resolve(), archive.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return None


def _source_hash(source: str) -> str | None:
    """Hash a source file, so that it can be recognised where it was moved to."""
    path = Path(source).expanduser()
    return hash_file(path) if "://" not in source and path.is_file() else None
