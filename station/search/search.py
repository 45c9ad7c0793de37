"""Search: score every embedding, apply the filters, group the rows of one pass, and decide what is found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.station.archive.store import flights_of
from overflight.station.search.cutoff import fit_cutoff
from overflight.station.search.filters import Filters
from overflight.station.search.matrix import Matrix
from overflight.station.search.ranking import Hit, Scored, rank
from overflight.station.search.unlike import ALARMS, differences, fit_difference, reference_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.station.archive import Archive, ArchivedFlight
    from overflight.station.search.terms import Terms

UNWANTED_WEIGHT = 0.5
_SAME_GROUND = """
SELECT place, distance, flight, frame, row FROM (
    SELECT *, row_number() OVER (PARTITION BY flight ORDER BY distance, row) AS place FROM (
        SELECT f.id AS flight, r.frame AS frame, r.id AS row,
            abs(p.west + p.east - :west - :east) * :cosine + abs(p.south + p.north - :south - :north) AS distance
        FROM places p JOIN rows r ON r.id = p.id JOIN flights f ON r.id >= f.first AND r.id < f.first + f.rows
        WHERE p.west <= :east AND p.east >= :west AND p.south <= :north AND p.north >= :south
            AND f.id != :flight AND r.tile = 0))
ORDER BY place, distance LIMIT :most
"""


class Found(msgspec.Struct, frozen=True):
    """The answer of a search.

    ``hits`` are the groups above the cut-off, the best first; empty means "not found". ``best`` are the best groups
    whatever the cut-off. ``cutoff`` is the least cosine, absent for pictures, which only rank;
    ``false_alarm`` is the measured share of ``held_out`` absent things that would have been found in these flights.
    ``same_ground`` names, for a hit's row, frames of other flights that show the same ground. ``searched`` counts rows,
    ``unknown`` those that a filter could not decide, ``unindexed`` frames without an embedding. ``other_towers`` counts
    flights of other models, which only their own bundle can search.
    """

    hits: tuple[Hit, ...]
    best: tuple[Hit, ...]
    searched: int
    unknown: int
    unindexed: int
    cutoff: float | None
    false_alarm: float | None
    held_out: int
    translated: dict[str, str]
    same_ground: dict[int, tuple[str, ...]] = {}
    other_towers: int = 0


def search(
    archive: Archive,
    bundle: Bundle,
    terms: Terms,
    filters: Filters | None = None,
    *,
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    most: int = 50,
    false_alarm: float | None = None,
    matrix: Matrix | None = None,
) -> Found:
    """Search the flights of the bundle's tower. ``embed`` turns background texts into vectors where none are kept.

    Every row is scored, so nothing is missed by an approximation. Raises UsageError where no flight has this tower.
    """
    matrix, filters = matrix or Matrix(archive), filters or Filters()
    with archive.read() as connection:
        flights = searched_flights(connection, bundle, filters)
        masks = [filters.mask(connection, flight) for flight in flights]
        scored = _score(flights, [mask for mask, _ in masks], terms, matrix)
        cutoff = None
        if len(terms.texts) and not len(terms.pictures):
            options = {} if false_alarm is None else {"false_alarm": false_alarm}
            cutoff = fit_cutoff(archive, flights, matrix, embed, **options)
        others = _other_towers(connection, bundle, filters)
        best = rank(connection, scored, most, cutoff=cutoff, exact=_exact(terms, matrix), matrix=matrix)
    hits = best if cutoff is None else tuple(hit for hit in best if hit.cosine > cutoff.cosine)
    return Found(
        hits=hits,
        best=best,
        searched=sum(len(one.numbers) for one in scored),
        unknown=sum(unknown for _, unknown in masks),
        unindexed=sum(flight.unindexed for flight in flights),
        cutoff=cutoff.cosine if cutoff else None,
        false_alarm=cutoff.measured if cutoff else None,
        held_out=cutoff.held_out if cutoff else 0,
        translated=terms.translated,
        other_towers=others,
    )


def search_unlike(
    archive: Archive, bundle: Bundle, reference: Sequence[str], filters: Filters | None = None, *, most: int = 50
) -> Found:
    """Rank the rows that differ most from reference flights (ids or names), above a cut-off fitted on the reference.

    The other flights of the bundle's tower are searched. ``score`` and ``cosine`` are the difference, from 0 to 2.
    """
    matrix, filters = Matrix(archive), filters or Filters()
    with archive.read() as connection:
        flights = searched_flights(connection, bundle, Filters(flights=filters.flights))
        known = [one for one in searched_flights(connection, bundle, Filters()) if {one.id, one.name} & set(reference)]
        if len({one.id for one in known}) < len(set(reference)):
            raise UsageError(f"--unlike {', '.join(reference)}: not all are flights of this tower; see archive list")
        rows = reference_rows(known, matrix)
        searched = [flight for flight in flights if flight not in known]
        masks = [filters.mask(connection, flight) for flight in searched]
        scored = []
        for flight, (mask, _) in zip(searched, masks, strict=True):
            numbers = np.flatnonzero(mask)
            different = differences(flight, rows, matrix)[numbers]
            scored.append(Scored(flight, numbers, different, different))
        if not scored:
            raise UsageError("--unlike: no other flight of this tower to search; add one, or name fewer references")
        best = rank(connection, scored, most, matrix=matrix)
    cutoff = fit_difference(rows)
    return Found(
        hits=tuple(hit for hit in best if hit.score > cutoff),
        best=best,
        searched=sum(len(one.numbers) for one in scored),
        unknown=sum(unknown for _, unknown in masks),
        unindexed=sum(flight.unindexed for flight in searched),
        cutoff=cutoff,
        false_alarm=ALARMS,
        held_out=0,
        translated={},
    )


def searched_flights(connection: sqlite3.Connection, bundle: Bundle, filters: Filters) -> list[ArchivedFlight]:
    """Return the flights of the bundle's tower that the filters name. Raises UsageError for none."""
    everything = list(flights_of(connection))
    flights = [one for one in everything if one.tower == bundle.manifest.tower]
    if unknown := sorted(set(filters.flights) - {key for one in everything for key in (one.id, one.name)}):
        raise UsageError(f"--flight {unknown[0]}: not in this archive; run: overflight archive list")
    if filters.flights:
        flights = [one for one in flights if one.id in filters.flights or one.name in filters.flights]
    if not flights:
        towers = sorted({f"{one.model} ({one.tower[:12]})" for one in everything})
        raise UsageError(
            f"no flight of {bundle.manifest.name} (tower {bundle.manifest.tower[:12]}) to search; the archive has "
            f"{', '.join(towers) or 'no flights'}: name its bundle with --bundle, or add flights"
        )
    return flights


def _other_towers(connection: sqlite3.Connection, bundle: Bundle, filters: Filters) -> int:
    named = (one for one in flights_of(connection) if not filters.flights or {one.id, one.name} & set(filters.flights))
    return sum(one.tower != bundle.manifest.tower for one in named)


def _score(flights: list[ArchivedFlight], masks: list[NDArray[np.bool_]], terms: Terms, matrix: Matrix) -> list[Scored]:
    wanted = np.concatenate([terms.texts, terms.pictures])
    every = np.concatenate([wanted, terms.unwanted])
    if len(every) == 1:
        return [_estimate(flight, mask, every[0], matrix) for flight, mask in zip(flights, masks, strict=True)]
    cosines = [matrix.cosines(flight, every) for flight in flights]
    joined = np.concatenate(cosines, axis=1)
    means, spreads = joined.mean(axis=1), np.maximum(joined.std(axis=1), 1e-6)
    scored = []
    for flight, mask, found in zip(flights, masks, cosines, strict=True):
        numbers = np.flatnonzero(mask)
        part = found[:, numbers]
        standard = (part - means[:, None]) / spreads[:, None]
        score = standard[: len(wanted)].mean(axis=0)
        if len(terms.unwanted):
            score = score - UNWANTED_WEIGHT * np.maximum(standard[len(wanted) :], 0).max(axis=0)
        scored.append(Scored(flight, numbers, score, part[: len(wanted)].min(axis=0)))
    return scored


def _exact(terms: Terms, matrix: Matrix) -> tuple[NDArray[np.float32], Matrix] | None:
    """Return what scores the best rows again; None where several terms are joined, whose scores are exact."""
    every = np.concatenate([terms.texts, terms.pictures, terms.unwanted])
    return (every[0], matrix) if len(every) == 1 else None


def _estimate(flight: ArchivedFlight, mask: NDArray[np.bool_], term: NDArray[np.float32], matrix: Matrix) -> Scored:
    found, error = matrix.estimates(flight, term)
    numbers = np.flatnonzero(mask)
    score = found if len(numbers) == len(found) else found[numbers]
    return Scored(flight, numbers, score, score, error)


def same_ground(connection: sqlite3.Connection, hit: Hit, most: int = 20) -> list[tuple[str, int, int]]:
    """Return (flight, frame, row) of other flights whose ground overlaps a hit's, whether they matched or not.

    The nearest frame of each flight comes first, then the second of each: no flight hides another.
    """
    box = connection.execute("SELECT west, east, south, north FROM places WHERE id = ?", (hit.row,)).fetchone()
    if box is None:
        return []
    west, east, south, north = box
    given = {"south": south, "north": north, "flight": hit.flight, "most": most}
    given["cosine"] = math.cos(math.radians((south + north) / 2))
    turns = (0.0,) if west > -179.0 and east < 179.0 else (-360.0, 0.0, 360.0)  # the other side of the date line
    found = [
        values
        for turn in turns
        for values in connection.execute(_SAME_GROUND, given | {"west": west + turn, "east": east + turn})
    ]
    return [(flight, frame, row) for _, _, flight, frame, row in sorted(found)[:most]]
