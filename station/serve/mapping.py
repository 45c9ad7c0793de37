"""The map's data: tracks and footprints of the archive, and small pictures of mosaics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.geodesy import beside
from overflight.station.archive.places import place_of
from overflight.station.review import finding_number
from overflight.station.serve.endpoint import Call, File, NotKeptError, RefusedError
from overflight.station.serve.shapes import Footprint, MapData, MapFlight, Mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.station.archive import ArchivedFlight
    from overflight.station.serve.desk import Desk

MOST_FOOTPRINTS = 400
MOST_TRACK = 2000
_flights: dict[tuple[Path, str, int], MapFlight] = {}  # a flight never changes while its rows keep their numbers


class MapAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One flight of the map, or all."""

    flight: str = ""


def get_map(desk: Desk, call: Call) -> MapData:
    """Return tracks, footprints and mosaics."""
    flights = [one for one in desk.flights() if call.query.flight in {"", one.id, one.name}]
    drawn = tuple(_flight(desk, one) for one in flights)
    mosaics = (_mosaic(desk, one) for one in flights if one.kind == "mosaic")
    return MapData(drawn, tuple(one for one in mosaics if one is not None))


def get_mosaic(desk: Desk, call: Call) -> File:
    """Return a small picture of an orthomosaic, transparent where it shows nothing."""
    name = call.path["file"].removesuffix(".webp")
    flight = next((one for one in desk.flights() if one.id == name and one.kind == "mosaic"), None)
    if flight is None:
        raise RefusedError(404, "unknown", f"mosaic {name[:40]!r}: not one of this archive")
    source = _mosaic_file(desk, flight)
    if source is None:
        raise NotKeptError("no-picture", f"mosaic {name[:40]!r}: its file is not where it was")
    return File(desk.overviews.read(source), "image/webp", tag=f"mosaic-{name}")


def _flight(desk: Desk, flight: ArchivedFlight) -> MapFlight:
    """Draw a flight, thinned to what a page can show."""
    key = (desk.archive.directory.resolve(), flight.id, flight.first)
    if key in _flights:
        return _flights[key]
    track: list[tuple[float, float]] = []
    prints: list[Footprint] = []
    with desk.archive.read() as connection:
        rows = dict(
            connection.execute(
                "SELECT frame, id FROM rows WHERE id >= ? AND id < ? AND tile = 0",
                (flight.first, flight.first + flight.rows),
            )
        )
    for one in JournalReader(desk.archive.flight_directory(flight.id) / JOURNAL).observations():
        if one.pose is not None:
            track.append((one.pose.lat_deg, one.pose.lon_deg))
        place = place_of(one)
        if place is not None and len(place.footprint) == 4 and one.frame in rows:
            ring = tuple((lat, lon) for lon, lat in place.footprint)
            number = finding_number(flight.id, one.frame)
            prints.append(Footprint(rows[one.frame], one.frame, number, ring, one.label))
    first = track[0][1] if track else prints[0].ring[0][1] if prints else 0.0
    track = [(lat, beside(lon, first)) for lat, lon in track]  # in one piece across the date line
    prints = [
        msgspec.structs.replace(one, ring=tuple((lat, beside(lon, first)) for lat, lon in one.ring)) for one in prints
    ]
    points = track + [corner for one in prints for corner in one.ring]
    bounds = None
    if points:
        lats, lons = [lat for lat, _ in points], [lon for _, lon in points]
        bounds = ((min(lats), min(lons)), (max(lats), max(lons)))
    thin_track, thin_prints = _thin(track, MOST_TRACK), _thin(prints, MOST_FOOTPRINTS)
    drawn = MapFlight(flight.id, flight.name, tuple(thin_track), tuple(thin_prints), bounds)
    _flights[key] = drawn
    return drawn


def _mosaic(desk: Desk, flight: ArchivedFlight) -> Mosaic | None:
    """Return where a mosaic lies; None where it does not say, or where its file is gone."""
    source = _mosaic_file(desk, flight)
    place = None if source is None else desk.overviews.place(source)
    if place is None:
        return None
    ring = tuple((lat, lon) for lon, lat in place.footprint)
    return Mosaic(flight.name, f"/api/mosaics/{flight.id}.webp", ring)


def _mosaic_file(desk: Desk, flight: ArchivedFlight) -> Path | None:
    path = None if flight.source_path is None else desk.archive.directory / flight.source_path
    return path if path is not None and path.is_file() else None


def _thin(items: list[Any], most: int) -> list[Any]:
    step = -(-len(items) // most) or 1
    return items[::step]
