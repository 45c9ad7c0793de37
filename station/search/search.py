"""Search: score every embedding, apply the filters, group the rows of one pass, and decide what is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.station.archive.store import flights_of
from overflight.station.review import finding_number
from overflight.station.search.cutoff import Cutoff, fit_cutoff
from overflight.station.search.filters import Filters
from overflight.station.search.matrix import Matrix
from overflight.station.search.unlike import ALARMS, differences, fit_difference, reference_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.station.archive import Archive, ArchivedFlight
    from overflight.station.search.terms import Terms

PASS_S = 10.0  # hits of one flight closer than this are one pass over a thing
PASS_FRAMES = 15  # the same for sources without time
UNWANTED_WEIGHT = 0.5


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the archive that fits.

    ``score`` ranks: the cosine where one term is searched, the mean of standardised cosines otherwise. ``cosine`` is
    that of the term that fits least. ``percentile`` is the share of the searched rows with a lower score and
    ``background`` the share of background texts whose best cosine is lower, in percent. ``tile`` counts from 1; 0 is
    the whole frame. ``grouped`` are other rows of the same pass. ``number`` names the finding in reviews. Places are
    WGS-84 degrees with ``error_m`` as radius.
    """

    row: int
    flight: str
    flight_name: str
    frame: int
    tile: int
    score: float
    cosine: float
    percentile: float
    background: float | None = None
    utc_ns: int | None = None
    media_ns: int | None = None
    lat_deg: float | None = None
    lon_deg: float | None = None
    error_m: float | None = None
    height_m: float | None = None
    label: str | None = None
    name: str | None = None
    grouped: tuple[int, ...] = ()
    number: str = ""


class Found(msgspec.Struct, frozen=True):
    """The answer of a search.

    ``hits`` are the groups above the cut-off, the best first; empty means "not found". ``best`` are the best groups
    whatever the cut-off. ``cutoff`` is the least cosine, absent for pictures, which only rank;
    ``false_alarm`` is the measured share of ``held_out`` absent things that would have been found in these flights.
    ``same_ground`` names, for a hit's row, frames of other flights that show the same ground. ``searched`` counts rows,
    ``unknown`` those that a filter could not decide, ``unindexed`` frames without an embedding.
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


class _Scored(NamedTuple):
    """Scores of the rows of one flight that passed the filters: ``numbers`` are their positions in the segment."""

    flight: ArchivedFlight
    numbers: NDArray[np.int64]
    score: NDArray[np.float32]
    cosine: NDArray[np.float32]


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
        best = _groups(connection, scored, cutoff, most)
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
            scored.append(_Scored(flight, numbers, different, different))
        if not scored:
            raise UsageError("--unlike: no other flight of this tower to search; add one, or name fewer references")
        best = _groups(connection, scored, None, most)
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
    if filters.flights:
        flights = [one for one in flights if one.id in filters.flights or one.name in filters.flights]
    if not flights:
        towers = sorted({f"{one.model} ({one.tower[:12]})" for one in everything})
        raise UsageError(
            f"no flight of {bundle.manifest.name} (tower {bundle.manifest.tower[:12]}) to search; the archive has "
            f"{', '.join(towers) or 'no flights'}: name its bundle with --bundle, or add flights"
        )
    return flights


def _score(
    flights: list[ArchivedFlight], masks: list[NDArray[np.bool_]], terms: Terms, matrix: Matrix
) -> list[_Scored]:
    wanted = np.concatenate([terms.texts, terms.pictures])
    every = np.concatenate([wanted, terms.unwanted])
    cosines = [matrix.cosines(flight, every) for flight in flights]
    single = len(every) == 1
    if not single:
        joined = np.concatenate(cosines, axis=1)
        means, spreads = joined.mean(axis=1), np.maximum(joined.std(axis=1), 1e-6)
    scored = []
    for flight, mask, found in zip(flights, masks, cosines, strict=True):
        numbers = np.flatnonzero(mask)
        part = found[:, numbers]
        score = part[0]
        if not single:
            standard = (part - means[:, None]) / spreads[:, None]
            score = standard[: len(wanted)].mean(axis=0)
            if len(terms.unwanted):
                score = score - UNWANTED_WEIGHT * np.maximum(standard[len(wanted) :], 0).max(axis=0)
        scored.append(_Scored(flight, numbers, score, part[: len(wanted)].min(axis=0)))
    return scored


def _groups(connection: sqlite3.Connection, scored: list[_Scored], cutoff: Cutoff | None, most: int) -> tuple[Hit, ...]:
    """Return the best groups: each is its best row, with the other rows of the same pass."""
    scores = np.concatenate([one.score for one in scored])
    owners = np.concatenate([np.full(len(one.score), number) for number, one in enumerate(scored)])
    order = np.argsort(-scores, kind="stable")
    ranked = np.sort(scores)
    groups: list[tuple[Hit, list[int]]] = []
    starts = np.cumsum([0, *(len(one.score) for one in scored)])
    for place in order[: 40 * most]:
        one = scored[owners[place]]
        inside = int(place - starts[owners[place]])
        hit = _hit(connection, one, inside, ranked, cutoff)
        pass_ = next((group for group in groups if _same_pass(group[0], hit)), None)
        if pass_ is not None:
            pass_[1].append(hit.row)
        elif len(groups) < most:
            groups.append((hit, []))
        else:
            break
    return tuple(msgspec.structs.replace(hit, grouped=tuple(rows)) for hit, rows in groups)


def _hit(
    connection: sqlite3.Connection, one: _Scored, inside: int, ranked: NDArray[np.float32], cutoff: Cutoff | None
) -> Hit:
    row = one.flight.first + int(one.numbers[inside])
    frame, tile, utc_ns, media_ns, lat_deg, lon_deg, error_m, height_m, label, name = connection.execute(
        "SELECT frame, tile, utc_ns, media_ns, lat_deg, lon_deg, error_m, height_m, label, name FROM rows WHERE id = ?",
        (row,),
    ).fetchone()
    score, cosine = float(one.score[inside]), float(one.cosine[inside])
    return Hit(
        row=row,
        flight=one.flight.id,
        flight_name=one.flight.name,
        frame=frame,
        tile=tile,
        score=score,
        cosine=cosine,
        percentile=100 * float(np.searchsorted(ranked, score)) / len(ranked),
        background=None if cutoff is None else cutoff.percentile(cosine),
        utc_ns=utc_ns,
        media_ns=media_ns,
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        error_m=error_m,
        height_m=height_m,
        label=label,
        name=name,
        number=finding_number(one.flight.id, frame, tile),
    )


def _same_pass(a: Hit, b: Hit) -> bool:
    """Whether two rows of one flight were seen within seconds of each other (or frames, where there is no time)."""
    if a.flight != b.flight:
        return False
    if a.media_ns is not None and b.media_ns is not None:
        return abs(a.media_ns - b.media_ns) <= PASS_S * 1e9
    if a.name is not None:  # stills: neighbours are different views, a tile belongs to its own still
        return a.frame == b.frame
    if a.utc_ns is not None and b.utc_ns is not None:
        return abs(a.utc_ns - b.utc_ns) <= PASS_S * 1e9
    return abs(a.frame - b.frame) <= PASS_FRAMES


def same_ground(connection: sqlite3.Connection, hit: Hit, most: int = 20) -> list[tuple[str, int, int]]:
    """Return (flight, frame, row) of other flights whose ground overlaps a hit's, whether they matched or not."""
    return connection.execute(
        "SELECT f.id, r.frame, r.id FROM places a JOIN places b ON a.east >= b.west AND a.west <= b.east AND "
        "a.north >= b.south AND a.south <= b.north JOIN rows r ON r.id = b.id "
        "JOIN flights f ON r.id >= f.first AND r.id < f.first + f.rows "
        "WHERE a.id = ? AND f.id != ? AND r.tile = 0 ORDER BY r.id LIMIT ?",
        (hit.row, hit.flight, most),
    ).fetchall()
