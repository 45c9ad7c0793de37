"""Ranking: the best rows of scored flights, exactly, as groups of one pass or of one ground."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from overflight.runtime.geodesy import beside
from overflight.station.review import finding_number

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from overflight.station.archive import ArchivedFlight
    from overflight.station.search.cutoff import Cutoff
    from overflight.station.search.matrix import Matrix

PASS_S = 10.0  # hits of one flight closer than this are one pass over a thing
PASS_FRAMES = 15  # the same for sources without time
SAME_GROUND = 0.3  # hits of two flights whose ground overlaps by this much (common over both) show one thing
COPY = 0.999  # the least cosine of a picture that was added twice, decoded by two libraries
ROWS_A_GROUP = 40  # of the best rows that are looked through first, for each group that is asked for
MOST_ROWS = 50_000  # that are looked through where one pass fills the best rows


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the archive that fits.

    ``score`` ranks: the cosine where one term is searched, the mean of standardised cosines otherwise. ``cosine`` is
    that of the term that fits least. ``percentile`` is the share of the searched rows with a lower score and
    ``background`` the share of background texts whose best cosine is lower, in percent. ``tile`` counts from 1; 0 is
    the whole frame. ``grouped`` are other rows of the same pass, and rows of other flights that show the same ground or
    are the same picture. ``number`` names the finding in reviews. Places are WGS-84 degrees with ``error_m`` as radius.
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


class Scored(NamedTuple):
    """Scores of the rows of one flight that passed the filters: ``numbers`` are their positions in the segment.

    ``error`` is how far a score may be from the exact one; the best are scored again before they are ranked.
    """

    flight: ArchivedFlight
    numbers: NDArray[np.int64]
    score: NDArray[np.float32]
    cosine: NDArray[np.float32]
    error: float = 0.0


Box = tuple[float, float, float, float]  # west, east, south, north; east is beyond 180° on the date line


@dataclass
class _Group:
    """A hit with what decides which rows belong to it: its box, and where its embedding is; and those rows."""

    hit: Hit
    box: Box | None
    flight: ArchivedFlight
    place: np.int64
    rows: list[int] = field(default_factory=list)


class _Best(NamedTuple):
    """The best rows, the best first: whose they are, their places there, exact values, and percent of rows below."""

    owners: NDArray[np.int64]
    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    cosines: NDArray[np.float32]
    percentiles: NDArray[np.float64]


def rank(
    connection: sqlite3.Connection,
    scored: list[Scored],
    most: int,
    *,
    cutoff: Cutoff | None = None,
    exact: tuple[NDArray[np.float32], Matrix] | None = None,
    matrix: Matrix | None = None,
) -> tuple[Hit, ...]:
    """Return the best groups: each is its best row, with the other rows of the same pass or ground.

    ``exact`` is the term ``[D]`` and the matrix that score the best rows again where scores are estimates. ``matrix``
    has the embeddings by which a picture that was added twice is recognised; without it, it is two hits.
    """
    total = sum(len(one.score) for one in scored)
    looked = ROWS_A_GROUP * most
    while True:
        best = best_rows(scored, looked, exact)
        groups = _grouped(connection, scored, best, most, cutoff, matrix)
        below = cutoff is not None and len(best.cosines) and best.cosines[-1] <= cutoff.cosine
        if len(groups) == most or below or looked >= min(total, MOST_ROWS):
            return groups
        looked *= 8  # one long pass fills the best rows: other passes come after it


def _grouped(
    connection: sqlite3.Connection,
    scored: list[Scored],
    best: _Best,
    most: int,
    cutoff: Cutoff | None,
    matrix: Matrix | None,
) -> tuple[Hit, ...]:
    groups: list[_Group] = []
    for number in range(len(best.scores)):
        one = scored[best.owners[number]]
        hit, box = _hit(connection, one, best, number, cutoff)
        new = _Group(hit, box, one.flight, one.numbers[best.places[number]])
        group = next((known for known in groups if _belongs(known, new, matrix)), None)
        if group is not None:
            group.rows.append(hit.row)
        elif len(groups) < most:
            groups.append(new)
        else:
            break
    return tuple(msgspec.structs.replace(group.hit, grouped=tuple(group.rows)) for group in groups)


def best_rows(scored: list[Scored], count: int, exact: tuple[NDArray[np.float32], Matrix] | None) -> _Best:
    """Return the ``count`` best rows in their exact order.

    With an error of at most e, ``count`` rows are at least as good as the ``count``-th best estimate less e. A row
    whose estimate is lower by more than 2 e is worse than all of them, so only the others are scored again.
    """
    scores = np.concatenate([one.score for one in scored])
    cosines = np.concatenate([one.cosine for one in scored])
    total = len(scores)
    count = min(count, total)
    if not count:
        nothing = np.empty(0, np.int64)
        return _Best(nothing, nothing, scores, cosines, np.empty(0))
    least = np.partition(scores, total - count)[total - count]
    rows = np.flatnonzero(scores >= least - 2 * max(one.error for one in scored))
    starts = np.cumsum([0, *(len(one.score) for one in scored)])
    owners = np.searchsorted(starts, rows, side="right") - 1
    places, scores, cosines = rows - starts[owners], scores[rows], cosines[rows]
    if exact is not None:
        term, matrix = exact
        for owner in np.unique(owners):
            mine = owners == owner
            numbers = scored[owner].numbers[places[mine]]
            scores[mine] = cosines[mine] = matrix.rows(scored[owner].flight, numbers) @ term
    order = np.argsort(-scores, kind="stable")[:count]
    better = np.searchsorted(np.sort(-scores), -scores[order], side="right")
    return _Best(owners[order], places[order], scores[order], cosines[order], 100 * (total - better) / total)


def _hit(
    connection: sqlite3.Connection, one: Scored, best: _Best, number: int, cutoff: Cutoff | None
) -> tuple[Hit, Box | None]:
    row = one.flight.first + int(one.numbers[best.places[number]])
    frame, tile, utc_ns, media_ns, lat_deg, lon_deg, error_m, height_m, label, name, *box = connection.execute(
        "SELECT frame, tile, utc_ns, media_ns, lat_deg, lon_deg, error_m, height_m, label, name, west, east, south, "
        "north FROM rows LEFT JOIN places ON places.id = rows.id WHERE rows.id = ?",
        (row,),
    ).fetchone()
    cosine = float(best.cosines[number])
    hit = Hit(
        row=row,
        flight=one.flight.id,
        flight_name=one.flight.name,
        frame=frame,
        tile=tile,
        score=float(best.scores[number]),
        cosine=cosine,
        percentile=float(best.percentiles[number]),
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
    return hit, None if box[0] is None else (box[0], box[1], box[2], box[3])


def _belongs(group: _Group, new: _Group, matrix: Matrix | None) -> bool:
    if group.hit.flight == new.hit.flight:
        return _same_pass(group.hit, new.hit)
    if group.box is not None and new.box is not None and _area(group.box) and _area(new.box):
        return _overlap(group.box, new.box) >= SAME_GROUND
    return matrix is not None and _copy(group, new, matrix)


def _copy(one: _Group, other: _Group, matrix: Matrix) -> bool:
    """Whether two rows are one picture: of the same name and moment, and looking alike."""
    facts = [(hit.name, hit.media_ns, hit.utc_ns, hit.tile) for hit in (one.hit, other.hit)]
    if facts[0] != facts[1] or facts[0][:2] == (None, None):
        return False
    return float(matrix.rows(one.flight, one.place) @ matrix.rows(other.flight, other.place)) >= COPY


def _area(box: Box) -> float:
    return max(0.0, box[1] - box[0]) * max(0.0, box[3] - box[2])


def _overlap(a: Box, b: Box) -> float:
    """Return the common ground of two boxes over the ground of both; degrees do, for both lie at one place."""
    turn = beside(b[0], a[0]) - b[0]
    common = _area(
        (max(a[0], b[0] + turn), min(a[1], b[1] + turn), max(a[2], b[2]), min(a[3], b[3])),
    )
    return common / (_area(a) + _area(b) - common)


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
