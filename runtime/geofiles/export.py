"""Exporting a flight directory to map files."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight.directory import JOURNAL, OBSERVATIONS, read_record
from overflight.runtime.flight.journal_reader import read_observations
from overflight.runtime.geofiles.geojson import write_geojson
from overflight.runtime.geofiles.geopackage import write_geopackage
from overflight.runtime.geofiles.kml import write_kml
from overflight.runtime.geofiles.layers import layers_of
from overflight.runtime.geofiles.table import write_csv
from overflight.runtime.json_input import decode_json
from overflight.runtime.records import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

FORMATS = {"geojson": write_geojson, "gpkg": write_geopackage, "kml": write_kml, "csv": write_csv}


class Exported(msgspec.Struct, frozen=True):
    """What an export wrote: the files, features by layer, and how many observations had no position."""

    files: tuple[str, ...]
    features: dict[str, int]
    without_position: int


def export_flight(directory: Path, formats: Sequence[str], out: Path | None = None) -> Exported:
    """Write ``flight.<format>`` for each format, into ``out`` or the flight directory itself, each atomically.

    Raises UsageError for an unknown format or where no flight is, OverflightError where nothing has a position or the
    directory cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"format {', '.join(unknown) or 'missing'}: expected some of {', '.join(FORMATS)}")
    read_record(directory)
    layers, lost = layers_of(read_flight(directory), read_events(directory))
    if not layers:
        raise OverflightError(
            f"{directory}: none of its {lost} observations has a position; fly with --pose to map them"
        )
    out = out or directory
    files = [out / f"flight.{name}" for name in formats]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, path in zip(formats, files, strict=True):
            FORMATS[name](path, layers)
    except (OSError, sqlite3.Error) as error:
        raise OverflightError(f"{out}: {error}; name another directory with --out") from error
    return Exported(tuple(map(str, files)), {layer.name: len(layer.features) for layer in layers}, lost)


def read_flight(directory: Path) -> Iterable[Observation]:
    """Yield a flight's observations from its journal, or from ``observations.jsonl`` where only that was copied."""
    if (directory / JOURNAL).is_file():
        return read_observations(directory / JOURNAL)
    return _lines(directory / OBSERVATIONS)


def read_events(directory: Path) -> Iterator[Event]:
    """Yield a flight's events in order; none where the journal was not copied."""
    path = directory / JOURNAL
    if not path.is_file():
        return
    connection = sqlite3.connect(path, timeout=5.0)
    try:
        for (record,) in connection.execute("SELECT record FROM events ORDER BY id"):
            yield decode_json(record, Event)
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        raise OverflightError(f"{path}: not a flight journal ({error}); copy the flight again") from error
    finally:
        connection.close()


def _lines(path: Path) -> Iterator[Observation]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected the directory that overflight run left") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield decode_json(line, Observation)
        except msgspec.DecodeError as error:
            if number == len(lines):
                return  # a power cut tears the last line
            raise OverflightError(f"{path}, line {number}: {error}; copy the flight again") from error
