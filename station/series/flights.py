"""Flights over one ground at several dates: the tiles of the last flight, joined with the others by footprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.directory import JOURNAL
from overflight.station.changes.flights import places_error_m
from overflight.station.changes.register import Registration
from overflight.station.describe.describe import recorded
from overflight.station.ground.footprints import same_tiles
from overflight.station.series.dates import Dated, date_in_name, date_of_moment, order
from overflight.station.series.follow import Stack
from overflight.station.series.pictures import Seen, Shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overflight.runtime.records import Observation


def see_flights(paths: Sequence[Path], given: Sequence[Dated], width: int) -> Seen:
    """Join the tiles of all flights, the earliest flight first.

    Raises UsageError where the flights have no order, and where one of them shows nothing of the last one's ground.
    """
    flights = [recorded(path, width) for path in paths]
    dates: list[Dated | None] = list(given) or [
        _date_of(path, seen) for path, (*_, seen) in zip(paths, flights, strict=True)
    ]
    places = order([str(path) for path in paths], dates)
    *_, last_tiles, last_seen = flights[places[-1]]
    rings = [tile.ring for tile in last_tiles]
    known, vectors, shown = [], [], []
    for place in places:
        _, own_vectors, own_tiles, seen = flights[place]
        rows = (
            np.arange(len(last_tiles)) if place == places[-1] else same_tiles([tile.ring for tile in own_tiles], rings)
        )
        if not (rows >= 0).any():
            raise UsageError(
                f"{paths[place]}: no footprint overlaps one of {paths[places[-1]]}; fly over one ground with --pose"
            )
        known.append(rows >= 0)
        vectors.append(np.where((rows >= 0)[:, None], own_vectors[rows], 0).astype(np.float32))
        error_m = round(float(np.hypot(places_error_m(seen), places_error_m(last_seen))), 2)
        dated = dates[place]
        assert dated is not None  # order() refuses a source without a date
        registration = Registration("footprints", error_m=error_m)
        shown.append(Shown(dated, str(paths[place]), hash_file(paths[place] / JOURNAL), registration, None))
    stack = Stack(np.stack(vectors), np.stack(known), None)
    notes = ("frames of a flight overlap: a place may be counted more than once",)
    return Seen(tuple(shown), last_tiles, (1, 1), stack, None, None, notes)


def _date_of(path: Path, seen: Sequence[Observation]) -> Dated | None:
    moment = next((utc_ns for one in seen if (utc_ns := one.utc_ns) is not None), None)
    return date_in_name(path.resolve().name) if moment is None else date_of_moment(moment, "flight")
