"""Following tiles over the dates: in which step each changed, whether that lasted, and what each label did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.export.statistics import wilson
from overflight.station.changes.score import hysteresis
from overflight.station.series.record import Curve, Interval, Point, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.station.changes.score import Background

UNKNOWN = "unknown"
_SURE = 0.05  # chance of an evident interval where nothing changed, over all intervals


@dataclass(frozen=True)
class Stack:
    """The tiles of one ground: unit embeddings ``[N, T, D]`` at N dates, and which are known ``[N, T]``.

    ``cells`` are the tiles' (row, column), where they lie on one grid; None where they are joined by footprints.
    """

    embeddings: NDArray[np.float32]
    known: NDArray[np.bool_]
    cells: tuple[tuple[int, int], ...] | None


class Steps(NamedTuple):
    """For each date and tile ``[N, T]``: the step's score (NaN for none), the date that it starts from, and whether
    it is a change."""

    scores: NDArray[np.float64]
    starts: NDArray[np.int64]
    changed: NDArray[np.bool_]


class Followed(NamedTuple):
    """What one tile did: see ``record.TileSeries``."""

    scores: tuple[float | None, ...]
    state: State
    changed_from: int | None
    changed_to: int | None


def steps_of(stack: Stack, background: Background) -> Steps:
    """Score each tile's step to every date from the last date that showed it, and decide which are changes.

    Hysteresis joins neighbours whose steps start at the same date.
    """
    dates, tiles = stack.known.shape
    scores, starts = np.full((dates, tiles), np.nan), np.full((dates, tiles), -1)
    last = np.where(stack.known[0], 0, -1)
    for date in range(1, dates):
        shown = np.flatnonzero(stack.known[date] & (last >= 0))
        if len(shown):
            before, after = stack.embeddings[last[shown], shown], stack.embeddings[date, shown]
            scores[date, shown] = background.scores(before, after)
            starts[date, shown] = last[shown]
        last = np.where(stack.known[date], date, last)
    changed = np.nan_to_num(scores, nan=-1.0) > background.high
    if stack.cells is not None:
        pairs = [(date, start) for date in range(1, dates) for start in set(starts[date].tolist()) - {-1}]
        for date, start in pairs:
            rows = np.flatnonzero(starts[date] == start)
            cells = [stack.cells[row] for row in rows]
            changed[date, rows] = hysteresis(scores[date, rows], cells, background.high, background.low)
    return Steps(scores, starts, changed)


def follow(stack: Stack, steps: Steps, background: Background) -> list[Followed]:
    """Follow every tile over the dates."""
    found = []
    for tile in range(stack.known.shape[1]):
        shown = tuple(None if math.isnan(score) else round(float(score), 5) for score in steps.scores[:, tile])
        state, pair = _outcome(stack, tile, steps, background)
        found.append(Followed(shown, state, *(pair or (None, None))))
    return found


def _outcome(stack: Stack, tile: int, steps: Steps, background: Background) -> tuple[State, tuple[int, int] | None]:
    changed = steps.changed[:, tile]
    known = np.flatnonzero(stack.known[:, tile])
    if len(known) < 2:
        return "unknown", None
    vectors = stack.embeddings[:, tile]

    def differ(one: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        return background.scores(np.repeat(vectors[one][None], len(others), axis=0), vectors[others])

    if not changed.any():
        ends = int(known[0]), int(known[-1])
        gradual = len(known) > 2 and float(differ(ends[0], known[-1:])[0]) > background.high
        return ("gradual", ends) if gradual else ("unchanged", None)
    after = int(np.where(changed, steps.scores[:, tile], -np.inf).argmax())
    before = int(steps.starts[after, tile])
    later = known[known > after]
    if not len(later):
        return "newest", (before, after)
    lasted = bool((differ(before, later) > background.low).all())
    return ("lasting" if lasted else "returned"), (before, after)


def intervals(steps: Steps, limit: float, false_alarm: float) -> list[Interval]:
    """Count the changed tiles between dates that follow each other.

    A tile that the date before does not show cannot be assigned to one interval and is not counted in any. Whether an
    interval is evident rests on the tiles above ``limit``: those that hysteresis joins to them have more false alarms.
    """
    pairs = list(pairwise(range(len(steps.scores))))
    found = []
    for before, after in pairs:
        both = steps.starts[after] == before
        compared, count = int(both.sum()), int((steps.changed[after] & both).sum())
        low, high = wilson(count, compared)
        sure = int((both & (np.nan_to_num(steps.scores[after], nan=-1.0) > limit)).sum())
        evident = compared > 0 and _by_chance(sure, compared, false_alarm) < _SURE / len(pairs)
        share = round(count / compared, 4) if compared else 0.0
        found.append(
            Interval(
                before=before,
                after=after,
                compared=compared,
                changed=count,
                share=share,
                low=round(low, 4),
                high=round(high, 4),
                evident=evident,
            )
        )
    return found


def curves(labels: Sequence[Sequence[str | None]]) -> list[Curve]:
    """Return a curve for each label that was ever seen, the commonest first, and "unknown" last.

    ``labels`` has for each tile its label at every date, "unknown" where it abstains, None where it is not shown.
    """
    by_date = list(zip(*labels, strict=True))
    names = {name for tile in labels for name in tile if name is not None} - {UNKNOWN}
    found = []
    for name in names:
        points = [_point(name, date) for date in by_date]
        seen = [place for place, point in enumerate(points) if point.tiles]
        found.append(Curve(label=name, points=tuple(points), first_seen=seen[0], last_seen=seen[-1]))
    found.sort(key=lambda curve: (-sum(point.share for point in curve.points), curve.label))
    unknown = tuple(_point(UNKNOWN, date) for date in by_date)
    return [*found, Curve(label=UNKNOWN, points=unknown, first_seen=None, last_seen=None)]


def _point(name: str, date: Sequence[str | None]) -> Point:
    shown = sum(label is not None for label in date)
    tiles = sum(label == name for label in date)
    low, high = wilson(tiles, shown)
    return Point(tiles, shown, round(tiles / shown, 4) if shown else 0.0, round(low, 4), round(high, 4))


def _by_chance(count: int, total: int, chance: float) -> float:
    """Return how likely it is that ``count`` or more of ``total`` tiles are false alarms (binomial)."""
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        + k * math.log(chance) + (total - k) * math.log1p(-chance)
        for k in range(count)
    ]  # fmt: skip
    return max(0.0, 1.0 - sum(map(math.exp, logs)))
