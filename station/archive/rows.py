"""Reading a flight of the archive: its recorded frames by row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import OverflightError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.json_input import decode_json
from overflight.runtime.records import Observation
from overflight.station.archive.places import place_of, tile_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.records import Glance
    from overflight.station.archive.store import Archive, ArchivedFlight
    from overflight.station.ground.footprints import Ring


def observation_of(archive: Archive, flight: str, frame: int) -> Observation | None:
    """Return what was recorded of a frame; None where its row cannot be decoded."""
    journal = archive.flight_directory(flight) / JOURNAL
    with closing(sqlite3.connect(journal, timeout=5.0)) as connection:
        found = connection.execute("SELECT record FROM observations WHERE frame = ? LIMIT 1", (frame,)).fetchone()
    try:
        return None if found is None else decode_json(found[0], Observation)
    except msgspec.DecodeError:
        return None


def glances_of(archive: Archive, flight: ArchivedFlight) -> Iterator[tuple[Glance, int]]:
    """Yield a flight's frames that have rows, in order of the rows, with the number of their tiles.

    Raises OverflightError where the journal has no longer what the index was made from.
    """
    with archive.read() as connection:
        tiles = connection.execute(
            "SELECT frame, max(tile) FROM rows WHERE id >= ? AND id < ? GROUP BY id - tile ORDER BY id",
            (flight.first, flight.first + flight.rows),
        ).fetchall()
    glances = JournalReader(archive.flight_directory(flight.id) / JOURNAL).glances()
    for frame, count in tiles:
        glance = next((one for one in glances if one.frame == frame), None)
        if glance is None:
            raise OverflightError(f"{flight.name}: frame {frame} is not in its journal; run: overflight archive check")
        yield glance, count


def grid_of(archive: Archive, flight: str, frame: int) -> tuple[int, int] | None:
    """Return the rows and columns of a frame's tiles."""
    observation = observation_of(archive, flight, frame)
    grid = observation.tiles if observation else None
    return None if grid is None else (grid.rows, grid.columns)


def rings_of(archive: Archive, flight: ArchivedFlight) -> tuple[list[Ring], NDArray[np.bool_]]:
    """Return the ground of every row of a flight's segment, empty where not known, and which rows are tiles."""
    rings: list[Ring] = []
    tiled: list[bool] = []
    for observation, embedding, tiles in JournalReader(archive.flight_directory(flight.id) / JOURNAL).frames():
        if embedding is None:
            continue
        place = place_of(observation)
        rings.append(_ring(place))
        tiled.append(False)
        if tiles is not None and observation.tiles is not None:
            places = tile_places(place, observation.tiles.rows, observation.tiles.columns)
            rings += [_ring(one) for one in places]
            tiled += [True] * len(places)
    return rings, np.array(tiled, bool)


def ring_of(archive: Archive, flight: str, frame: int, tile: int = 0) -> Ring:
    """Return the ground of a frame or of one of its tiles (from 1), empty where not known."""
    observation = observation_of(archive, flight, frame)
    place = place_of(observation) if observation is not None else None
    if observation is not None and observation.tiles is not None and tile:
        place = tile_places(place, observation.tiles.rows, observation.tiles.columns)[tile - 1]
    return _ring(place)


def _ring(place: Place | None) -> Ring:
    return () if place is None or place.stale else place.footprint
