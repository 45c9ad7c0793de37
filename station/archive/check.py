"""Checking an archive: every file's hash, leftovers of killed commands, and sources that were moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError
from overflight.station.archive.ingest import STAGING
from overflight.station.archive.sources import EMBEDDED, FLYING

if TYPE_CHECKING:
    from overflight.station.archive.store import Archive, ArchivedFlight

Problem = Literal["missing", "altered", "leftover", "source moved", "source missing"]
_FILES = 200_000  # a search for moved sources looks at no more


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be; ``harmless`` where no embedding or record is lost by it."""

    problem: Problem
    path: str
    flight: str | None = None
    harmless: bool = False
    found_at: str | None = None


def check(archive: Archive, *, search_in: Path | None = None) -> list[Finding]:
    """Compare every file with its hash. ``search_in`` is a folder in which moved sources are looked for by content."""
    findings: list[Finding] = []
    flights = archive.flights()
    for flight in flights:
        for name, expected in flight.files.items():
            path = archive.segment_path(flight.id) if name == "segment" else archive.flight_directory(flight.id) / name
            if not path.is_file():
                findings.append(Finding("missing", str(path), flight.id))
            elif hash_file(path) != expected:
                findings.append(Finding("altered", str(path), flight.id))
        findings += _check_source(archive, flight, search_in)
    known = {flight.id for flight in flights}
    for folder, suffix in (("flights", ""), ("segments", ".f16.npy")):
        for path in sorted((archive.directory / folder).glob(f"*{suffix}")):
            if path.name.removesuffix(suffix) not in known:
                findings.append(Finding("leftover", str(path), harmless=True))
    findings += [
        Finding("leftover", str(path), harmless=True)
        for begun in (STAGING, FLYING, EMBEDDED)
        for path in archive.directory.glob(f"{begun}*")
    ]
    return findings


def relocate(archive: Archive, findings: list[Finding]) -> int:
    """Note the new path of sources that were found elsewhere; return how many."""
    from overflight.station.archive.index import open_index

    moved = [one for one in findings if one.problem == "source moved" and one.found_at and one.flight]
    with archive.locked(), open_index(archive.index, create=True) as connection:
        for one in moved:
            relative = Path(os.path.relpath(str(one.found_at), archive.directory.resolve())).as_posix()
            connection.execute("UPDATE flights SET source_path = ? WHERE id = ?", (relative, one.flight))
    return len(moved)


def repair(archive: Archive) -> list[str]:
    """Build missing or damaged segments again from the kept flights; return the ids of the flights that were built.

    Raises OverflightError for a flight whose own journal is damaged: only a copy of the flight can bring it back.
    """
    broken = {one.flight for one in check(archive) if one.problem in {"missing", "altered"} and one.flight}
    rebuilt = []
    for flight in archive.flights():
        if flight.id not in broken:
            continue
        directory = archive.flight_directory(flight.id)
        damaged = [
            name
            for name, expected in flight.files.items()
            if name != "segment" and not ((directory / name).is_file() and hash_file(directory / name) == expected)
        ]
        if damaged:
            raise OverflightError(
                f"{directory}: {', '.join(damaged)} damaged; remove the flight and add a copy of it again"
            )
        _rebuild_segment(archive, flight)
        rebuilt.append(flight.id)
    return rebuilt


def _rebuild_segment(archive: Archive, flight: ArchivedFlight) -> None:
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import JournalReader
    from overflight.station.archive.ingest import write_rows

    path = archive.segment_path(flight.id)
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(exist_ok=True)
    with archive.locked():
        write_rows(JournalReader(archive.flight_directory(flight.id) / JOURNAL), partial)
        partial.replace(path)


def _check_source(archive: Archive, flight: ArchivedFlight, search_in: Path | None) -> list[Finding]:
    if flight.source_path is None:
        return []
    path = archive.directory / flight.source_path
    if path.exists():
        return []
    found = _find_source(flight, search_in) if search_in is not None else None
    if found is not None:
        return [Finding("source moved", str(path), flight.id, harmless=True, found_at=str(found))]
    return [Finding("source missing", str(path), flight.id, harmless=True)]


def _find_source(flight: ArchivedFlight, folder: Path) -> Path | None:
    """Find a source by its name and content; a folder of stills by its name alone."""
    name = Path(str(flight.source_path)).name
    for count, path in enumerate(folder.rglob(name)):
        if count > _FILES:
            return None
        if flight.source_sha256 is None and path.is_dir():
            return path
        if path.is_file() and hash_file(path) == flight.source_sha256:
            return path
    return None
