"""Rows of the archive as people see them: facts, picture, neighbours, the same ground in other flights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from overflight.station.archive.pictures import cut_tile, picture_of, shrink
from overflight.station.archive.places import place_of
from overflight.station.archive.rows import grid_of, observation_of
from overflight.station.review import finding_number
from overflight.station.search.matrix import Matrix
from overflight.station.search.ranking import Hit
from overflight.station.search.search import same_ground
from overflight.station.serve.endpoint import Call, File, NotKeptError, RefusedError
from overflight.station.serve.shapes import Review, Seen

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from overflight.station.archive import ArchivedFlight
    from overflight.station.serve.desk import Desk

_COLUMNS = "id, frame, tile, utc_ns, media_ns, lat_deg, lon_deg, error_m, height_m, label, name"
NEIGHBOURS = 12
_COUNT = re.compile(r"[0-9]{1,15}")  # longer ones do not fit the index; merged reviews may hold any
WIDTHS_PX = (168, 320, 480, 640, 960, 1280)


class WidthAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How wide a picture is wanted, in pixels; ``of`` is the finding's number, with which a browser may keep it."""

    width: int = 320
    of: str = ""


class CountAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many are wanted."""

    count: int = NEIGHBOURS


Reviewed = dict[str, tuple[str, tuple[Review, ...]]]


def reviews_of(desk: Desk) -> Reviewed:
    """Return state and decisions of every reviewed finding, by number."""
    from overflight.station.review import findings

    return {
        one.number: (one.state, tuple(Review(r.reviewer, r.state, r.utc_ns, r.comment) for r in one.reviews))
        for one in findings(desk.archive)
    }


def seen_rows(desk: Desk, rows: Sequence[int], reviewed: Reviewed | None = None) -> list[Seen]:
    """Return rows in the given order; one that is not there any more is left out."""
    flights = desk.flights()
    reviewed = reviews_of(desk) if reviewed is None else reviewed
    found: dict[int, Seen] = {}
    with desk.archive.read() as connection:
        for start in range(0, len(rows), 500):
            part = list(rows[start : start + 500])
            marks = ", ".join("?" * len(part))
            query = f"SELECT {_COLUMNS} FROM rows WHERE id IN ({marks})"  # noqa: S608 - our own columns
            for values in connection.execute(query, part):
                flight = next(one for one in flights if one.first <= values[0] < one.first + one.rows)
                found[values[0]] = make_seen(flight, values, reviewed)
    return [found[row] for row in rows if row in found]


def make_seen(flight: ArchivedFlight, values: Sequence[Any], reviewed: Mapping[str, Any]) -> Seen:
    """Return a row of the index (``id, frame, tile, …``) as people see it."""
    number = finding_number(flight.id, values[1], values[2])
    state, reviews = reviewed.get(number, (None, ()))
    return Seen(
        values[0],
        number,
        flight.id,
        flight.name,
        values[1],
        values[2],
        label=values[9],
        name=values[10],
        utc_ns=values[3],
        media_ns=values[4],
        lat_deg=values[5],
        lon_deg=values[6],
        error_m=values[7],
        height_m=values[8],
        state=state,
        reviews=reviews,
    )


def seen_hits(desk: Desk, hits: Iterable[Hit]) -> tuple[Seen, ...]:
    """Return the hits of a search with their reviews."""
    reviewed = reviews_of(desk)
    fields = {field for field in Seen.__struct_fields__ if field in Hit.__struct_fields__}
    return tuple(
        msgspec.structs.replace(
            Seen(hit.row, hit.number, hit.flight, hit.flight_name, hit.frame, hit.tile),
            **{name: getattr(hit, name) for name in fields},
            state=reviewed.get(hit.number, (None, ()))[0],
            reviews=reviewed.get(hit.number, (None, ()))[1],
        )
        for hit in hits
    )


def get_row(desk: Desk, call: Call) -> Seen:
    """Return everything that is known of a row."""
    row = int(call.path["row"])
    seen = one_row(desk, row)
    observation = observation_of(desk.archive, seen.flight, seen.frame)
    if observation is None:
        return seen
    box = None
    if seen.tile and observation.tiles is not None:
        box = tile_box(seen.tile, observation.tiles.rows, observation.tiles.columns)
    place = place_of(observation)
    ring = place.footprint if place is not None else ()
    score = observation.scores[0].score if observation.scores and not seen.tile else None
    return msgspec.structs.replace(seen, box=box, footprint=ring, score=score)


def tile_box(tile: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Return x, y, width and height of a tile (from 1, row by row) as shares of the picture."""
    row, column = divmod(tile - 1, columns)
    return column / columns, row / rows, 1 / columns, 1 / rows


def get_row_picture(desk: Desk, call: Call) -> File:
    """Return the picture of a row, a tile marked."""
    seen = one_row(desk, int(call.path["row"]))
    if call.query.of not in {"", seen.number}:
        raise NotKeptError("no-picture", f"row {seen.row}: is another finding now; load the page again")
    width = next((one for one in WIDTHS_PX if one >= call.query.width), WIDTHS_PX[-1])
    flight = desk.flight_of(seen.row)
    jpeg = _large(desk, flight, seen, width)
    if jpeg is None:
        jpeg = kept_picture(desk, flight, seen)
    if seen.tile and (grid := grid_of(desk.archive, seen.flight, seen.frame)) is not None:
        jpeg = cut_tile(jpeg, seen.tile, *grid)
    return File(jpeg, "image/jpeg", tag=f"{seen.number}-{width}" if call.query.of else None)


def get_row_original(desk: Desk, call: Call) -> File:
    """Return the still as it was taken, else the picture that was kept."""
    seen = one_row(desk, int(call.path["row"]))
    flight = desk.flight_of(seen.row)
    path = source_file(desk, flight, seen.name)
    if path is None or path.suffix.lower() not in {".jpg", ".jpeg", ".png", ".webp"}:
        return File(kept_picture(desk, flight, seen), "image/jpeg", name=f"{seen.number}.jpg")
    media = {".png": "image/png", ".webp": "image/webp"}.get(path.suffix.lower(), "image/jpeg")
    return File(path.read_bytes(), media, name=path.name)


def get_neighbours(desk: Desk, call: Call) -> list[Seen]:
    """Return the rows that look most like one, of other passes."""
    row = int(call.path["row"])
    count = max(1, min(48, call.query.count))
    wanted, matrix = desk.vectors_of([row]), Matrix(desk.archive, cache_bytes=0)
    best: list[tuple[float, int]] = []
    for flight in desk.flights():
        if flight.tower == desk.bundle.manifest.tower:
            (cosines,) = matrix.cosines(flight, wanted)
            top = np.argsort(-cosines)[: count + 40]
            best += [(float(cosines[number]), flight.first + int(number)) for number in top]
    near = one_row(desk, row)
    ranked = [found for _, found in sorted(best, reverse=True) if found != row]
    rows = [one for one in seen_rows(desk, ranked[: count + 40]) if _apart(one, near)]
    return rows[:count]


def get_ground(desk: Desk, call: Call) -> list[Seen]:
    """Return the frames of other flights that show the same ground."""
    seen = one_row(desk, int(call.path["row"]))
    hit = Hit(seen.row, seen.flight, seen.flight_name, seen.frame, seen.tile, 0.0, 0.0, 0.0)
    with desk.archive.read() as connection:
        rows = [row for _, _, row in same_ground(connection, hit)]
    return seen_rows(desk, rows)


def one_row(desk: Desk, row: int) -> Seen:
    """Return a row. Raises RefusedError."""
    found = seen_rows(desk, [row])
    if not found:
        raise RefusedError(404, "unknown", f"row {row}: not in this archive")
    return found[0]


def source_file(desk: Desk, flight: ArchivedFlight, name: str | None) -> Path | None:
    """Return the still of a row where its folder is still there; never a file outside that folder."""
    if name is None or flight.source_path is None:
        return None
    folder = (desk.archive.directory / flight.source_path).resolve()
    path = (folder / name).resolve() if folder.is_dir() else folder
    return path if path.is_file() and (path == folder or path.is_relative_to(folder)) else None


def kept_picture(desk: Desk, flight: ArchivedFlight, seen: Seen) -> bytes:
    """Return the small picture (JPEG) that the archive keeps near a row. Raises RefusedError where there is none."""
    found = picture_of(desk.archive, flight, seen.frame, seen.name)
    if found is None:
        raise NotKeptError("no-picture", f"{seen.number}: no picture was kept near this frame")
    return found.jpeg


def _large(desk: Desk, flight: ArchivedFlight, seen: Seen, width: int) -> bytes | None:
    """Return a still in a larger size than the archive keeps; None where its file is not there."""
    from overflight.runtime.errors import OverflightError
    from overflight.runtime.sources.image import SUFFIXES, read_image

    path = source_file(desk, flight, seen.name)
    if width <= 320 or path is None or path.suffix.lower() not in SUFFIXES:
        return None
    try:
        frame = read_image(path)
    except OverflightError:
        return None
    pixels = frame.pixels if frame.order == "bgr" else frame.pixels[:, :, ::-1]
    return shrink(np.ascontiguousarray(pixels), min(width, pixels.shape[1]))


def _apart(one: Seen, other: Seen) -> bool:
    """Whether two rows are more than a moment of one flight apart."""
    if one.flight != other.flight:
        return True
    if one.name is not None:
        return one.frame != other.frame
    return abs(one.frame - other.frame) > 30


def rows_by_number(
    connection: sqlite3.Connection, flights: Sequence[ArchivedFlight], numbers: Sequence[str]
) -> list[int]:
    """Return the rows of findings' numbers in the given order; unknown ones are left out."""
    found = []
    for number in numbers:
        head, _, rest = number.partition("-")
        frame, _, tile = rest.partition(".")
        flight = next((one for one in flights if head and one.id.startswith(head)), None)
        if flight is None or not all(_COUNT.fullmatch(part) for part in (frame, tile or "0")):
            continue
        row = connection.execute(
            "SELECT id FROM rows WHERE id >= ? AND id < ? AND frame = ? AND tile = ?",
            (flight.first, flight.first + flight.rows, int(frame), int(tile or 0)),
        ).fetchone()
        found += [row[0]] if row else []
    return found
