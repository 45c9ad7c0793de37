"""Where running flights have been: each journal is read once, then only what was added to it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from pathlib import Path

MOST_POINTS = 2000


class _Pose(msgspec.Struct, frozen=True):
    lat_deg: float
    lon_deg: float


class _Posed(msgspec.Struct, frozen=True):
    """The part of an observation that a track needs."""

    pose: _Pose | None = None


@dataclass
class _Track:
    last: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)


class Tracks:
    """The tracks of flights by their directory."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int], _Track] = {}
        self._guard = threading.Lock()

    def read(self, directory: Path) -> list[tuple[float, float]]:
        """Return a flight's track, (lat, lon), thinned to 2,000 points; empty where the journal cannot be read."""
        journal = directory.resolve() / JOURNAL
        try:
            with self._guard:
                track = self._known.setdefault((journal, journal.stat().st_ino), _Track())
                with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
                    _extend(track, connection)
                points = list(track.points)
        except (OSError, sqlite3.DatabaseError):
            return []  # the reading of the flight says what is wrong with it
        return points[:: -(-len(points) // MOST_POINTS) or 1]


def _extend(track: _Track, connection: sqlite3.Connection) -> None:
    for row, record in connection.execute(
        "SELECT id, record FROM observations WHERE id > ? ORDER BY id", (track.last,)
    ):
        track.last = row
        try:
            pose = decode_json(record, _Posed).pose
        except msgspec.DecodeError:
            continue
        if pose is not None:
            track.points.append((pose.lat_deg, pose.lon_deg))
