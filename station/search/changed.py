"""Finding changes in an archive by text: tiles of two flights that show one ground at different dates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.station.archive.rows import rings_of
from overflight.station.changes.question import LEAST_GAIN
from overflight.station.changes.retrieve import ChangeQuery, rank
from overflight.station.ground.footprints import Ring, overlap, same_tiles
from overflight.station.review import finding_number
from overflight.station.search.cutoff import FALSE_ALARM, background_vectors
from overflight.station.search.filters import Filters
from overflight.station.search.search import searched_flights
from overflight.station.series.dates import Dated, date_in_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.station.archive import Archive, ArchivedFlight

    EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]

ROWS_A_GROUP = 40  # pairs of tiles that are looked at for each group of hits
SAME_GROUND = 0.3  # hits whose ground overlaps by this much are one group


class Seen(msgspec.Struct, frozen=True):
    """One date of a hit: its flight, frame and tile (0 is the whole frame), the flight's date, the finding's number."""

    row: int
    flight: str
    flight_name: str
    frame: int
    tile: int
    date: str
    name: str | None
    number: str


class ChangeHit(msgspec.Struct, frozen=True, kw_only=True):
    """A ground at two dates that fits the text: how much more the later date fits than the earlier one.

    ``background`` is the percentage of texts of absent things whose best score is lower. ``ring`` is the later date's
    ground in degrees. ``grouped`` counts further pairs of dates, or of overlapping tiles, of the same ground.
    """

    score: float
    background: float
    before: Seen
    after: Seen
    lat_deg: float
    lon_deg: float
    ring: Ring
    grouped: int = 0


class ChangesFound(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a search for a change.

    ``hits`` are above the cut-off, the best first; empty means "not found". ``best`` are the best whatever the cut-off.
    ``searched`` counts pairs of tiles, ``flight_pairs`` the pairs of flights that share ground. ``undated`` names
    flights without a date, which were left out; ``unplaced`` counts tiles without a place, ``unknown`` those that a
    filter could not decide. ``false_alarm`` is the measured share of ``held_out`` absent changes that would be found.
    """

    before: str
    after: str
    hits: tuple[ChangeHit, ...]
    best: tuple[ChangeHit, ...]
    searched: int
    flight_pairs: int
    undated: tuple[str, ...]
    unplaced: int
    unknown: int
    cutoff: float
    false_alarm: float
    held_out: int


@dataclass(frozen=True)
class _Part:
    """The tiles of one flight that a change is looked for in: rows of its segment, and their ground."""

    flight: ArchivedFlight
    dated: Dated
    numbers: NDArray[np.int64]
    rings: tuple[Ring, ...]


@dataclass(frozen=True)
class _Pairs:
    """Tiles that two flights show: rows of each flight's part, ``[K]`` both."""

    earlier: _Part
    later: _Part
    one: NDArray[np.int64]
    two: NDArray[np.int64]


def search_changes(
    archive: Archive,
    bundle: Bundle,
    query: ChangeQuery,
    filters: Filters | None = None,
    *,
    embed: EmbedTexts,
    most: int = 25,
    false_alarm: float = FALSE_ALARM,
    dates: Mapping[str, Dated] | None = None,
) -> ChangesFound:
    """Rank the grounds that two flights of the bundle's tower show at different dates.

    ``dates`` gives flights (by id or name) a date that they do not record. Both dates of a hit pass the filters.
    Raises UsageError where no two flights share ground.
    """
    filters = filters or Filters()
    with archive.read() as connection:
        flights = searched_flights(connection, bundle, filters)
        parts, undated, unplaced, unknown = _parts(archive, connection, flights, filters, dates or {})
        pairs = _pairs(archive, parts)
        if not pairs:
            raise UsageError(
                f"no two dated flights show one ground ({len(flights)} flights, {len(undated)} without a date); add "
                "flights of one place at two dates, or name a date: --date FLIGHT=2024-05-17"
            )
        gains = np.concatenate([_gain(archive, one) for one in pairs])
        scores = _scores(query, embed(query.texts), gains)
        maxima = _background(archive, bundle, query, gains, embed)
        fitting, held_out = np.sort(maxima[0::2]), maxima[1::2]
        cutoff = max(LEAST_GAIN, float(np.quantile(fitting, 1 - false_alarm, method="higher")))
        best = _grouped(connection, pairs, scores, fitting, most)
    return ChangesFound(
        before=query.before,
        after=query.after,
        hits=tuple(hit for hit in best if hit.score > cutoff),
        best=best,
        searched=len(scores),
        flight_pairs=len(pairs),
        undated=tuple(undated),
        unplaced=unplaced,
        unknown=unknown,
        cutoff=cutoff,
        false_alarm=float((held_out > cutoff).mean()),
        held_out=len(held_out),
    )


def _parts(
    archive: Archive,
    connection: sqlite3.Connection,
    flights: Sequence[ArchivedFlight],
    filters: Filters,
    dates: Mapping[str, Dated],
) -> tuple[list[_Part], list[str], int, int]:
    names = {key for flight in flights for key in (flight.id, flight.name)}
    if foreign := sorted(set(dates) - names):
        raise UsageError(f"--date {foreign[0]}=...: no such flight; run: overflight archive list")
    parts, undated, unplaced, unknown = [], [], 0, 0
    for flight in flights:
        dated = dates.get(flight.id) or dates.get(flight.name) or _date_of(flight)
        if dated is None:
            undated.append(flight.name)
            continue
        mask, lacking = filters.mask(connection, flight)
        unknown += lacking
        rings, tiled = rings_of(archive, flight)
        wanted = mask & (tiled if filters.kind != "frames" and tiled.any() else ~tiled)
        numbers = np.flatnonzero(wanted & np.array([len(ring) > 2 for ring in rings], bool))
        unplaced += int(wanted.sum()) - len(numbers)
        parts.append(_Part(flight, dated, numbers, tuple(rings[number] for number in numbers)))
    return parts, undated, unplaced, unknown


def _date_of(flight: ArchivedFlight) -> Dated | None:
    if flight.began_utc_ns is None or flight.ended_utc_ns is None:
        return date_in_name(flight.name)
    from overflight.station.series.dates import date_of_moment

    began = date_of_moment(flight.began_utc_ns, "flight")
    return msgspec.structs.replace(began, end_utc_ns=flight.ended_utc_ns + 1)


def _pairs(archive: Archive, parts: Sequence[_Part]) -> list[_Pairs]:
    found = []
    for one, two in combinations(sorted(parts, key=lambda part: part.dated.begin_utc_ns), 2):
        if one.dated.end_utc_ns > two.dated.begin_utc_ns:
            continue  # flown at the same time, or dates that have no order
        rows = same_tiles(one.rings, two.rings)
        if (kept := np.flatnonzero(rows >= 0)).size:
            found.append(_Pairs(one, two, rows[kept], kept))
    return found


def _gain(archive: Archive, pair: _Pairs) -> NDArray[np.float32]:
    """Return the later less the earlier embeddings ``[K, D]``."""
    earlier = archive.vectors(pair.earlier.flight)[pair.earlier.numbers[pair.one]].astype(np.float32)
    later = archive.vectors(pair.later.flight)[pair.later.numbers[pair.two]].astype(np.float32)
    return later - earlier


def _scores(query: ChangeQuery, vectors: NDArray[np.float32], gains: NDArray[np.float32]) -> NDArray[np.float64]:
    return rank(query, vectors, np.zeros_like(gains), gains)


def _background(
    archive: Archive, bundle: Bundle, query: ChangeQuery, gains: NDArray[np.float32], embed: EmbedTexts
) -> NDArray[np.float64]:
    """Return the best score ``[B]`` of absent changes that are worded as the query is: to, from, or from and to."""
    texts = background_vectors(archive, bundle.manifest.tower, embed)
    directions = np.zeros_like(texts)
    if query.after:
        directions += texts
    if query.before:
        directions -= np.roll(texts, 1, axis=0) if query.after else texts
    return np.asarray((gains @ directions.T).max(axis=0), np.float64)


def _grouped(
    connection: sqlite3.Connection,
    pairs: Sequence[_Pairs],
    scores: NDArray[np.float64],
    fitting: NDArray[np.float64],
    most: int,
) -> tuple[ChangeHit, ...]:
    starts = np.cumsum([0, *(len(pair.one) for pair in pairs)])
    groups: list[tuple[int, int, Ring, int]] = []
    for place in np.argsort(-scores, kind="stable")[: ROWS_A_GROUP * most].tolist():
        owner = int(np.searchsorted(starts, place, side="right")) - 1
        row = place - int(starts[owner])
        ring = pairs[owner].later.rings[pairs[owner].two[row]]
        same = next((n for n, group in enumerate(groups) if overlap(group[2], ring) >= SAME_GROUND), None)
        if same is not None:
            groups[same] = (*groups[same][:3], groups[same][3] + 1)
        elif len(groups) < most:
            groups.append((owner, row, ring, 0))
    return tuple(
        _hit(connection, pairs[owner], row, float(scores[int(starts[owner]) + row]), fitting, grouped)
        for owner, row, _, grouped in groups
    )


def _hit(
    connection: sqlite3.Connection, pair: _Pairs, row: int, score: float, fitting: NDArray[np.float64], grouped: int
) -> ChangeHit:
    ring = pair.later.rings[pair.two[row]]
    lon_deg, lat_deg = (float(value) for value in np.mean(ring, axis=0))
    return ChangeHit(
        score=round(score, 4),
        background=round(100 * float((fitting < score).mean()), 1),
        before=_seen(connection, pair.earlier, int(pair.one[row])),
        after=_seen(connection, pair.later, int(pair.two[row])),
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        ring=ring,
        grouped=grouped,
    )


def _seen(connection: sqlite3.Connection, part: _Part, row: int) -> Seen:
    number = part.flight.first + int(part.numbers[row])
    frame, tile, name = connection.execute("SELECT frame, tile, name FROM rows WHERE id = ?", (number,)).fetchone()
    found = finding_number(part.flight.id, frame, tile)
    return Seen(number, part.flight.id, part.flight.name, frame, tile, part.dated.text, name, found)
