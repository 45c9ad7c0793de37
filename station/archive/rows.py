"""Reading a flight of the archive: its recorded frames by row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.records import Observation

if TYPE_CHECKING:
    from overflight.station.archive.store import Archive


def observation_of(archive: Archive, flight: str, frame: int) -> Observation | None:
    """Return what was recorded of a frame; None where its row cannot be decoded."""
    journal = archive.flight_directory(flight) / JOURNAL
    with closing(sqlite3.connect(journal, timeout=5.0)) as connection:
        found = connection.execute("SELECT record FROM observations WHERE frame = ? LIMIT 1", (frame,)).fetchone()
    try:
        return None if found is None else msgspec.json.decode(found[0], type=Observation)
    except msgspec.DecodeError:
        return None


def grid_of(archive: Archive, flight: str, frame: int) -> tuple[int, int] | None:
    """Return the rows and columns of a frame's tiles."""
    observation = observation_of(archive, flight, frame)
    grid = observation.tiles if observation else None
    return None if grid is None else (grid.rows, grid.columns)
