"""What a time series holds; ``station/schemas/series.schema.json`` is its published schema."""

from __future__ import annotations

from typing import Literal

import msgspec

from overflight.station.changes.record import Limits
from overflight.station.changes.register import Registration
from overflight.station.series.dates import Origin

SCHEMA = 1
State = Literal["unchanged", "lasting", "returned", "newest", "gradual", "unknown"]


class Date(msgspec.Struct, frozen=True, kw_only=True):
    """One date: its text, where that is from, the source with its SHA-256, and how it lay on the first source.

    ``missing_tiles`` counts the tiles that this date does not show.
    """

    date: str
    origin: Origin
    source: str
    sha256: str
    registration: Registration
    missing_tiles: int


class TileSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One tile over the dates.

    ``labels`` has an entry for each date: a label, "unknown" where the group abstains, None where the date does not
    show the tile. ``scores`` has the score of the step to each date from the last date that shows the tile, None for
    the first. ``changed_from`` and ``changed_to`` are the dates (counted from 0) of the strongest change, absent where
    there is none.

    ``state`` is "lasting" where every later date differs from the one before the change, "returned" where one does not,
    "newest" where no later date shows the tile, "gradual" where the first and the last date differ and no step does
    (the two dates are then the first and the last), "unknown" where fewer than two dates show it.
    """

    row: int
    column: int
    labels: tuple[str | None, ...]
    scores: tuple[float | None, ...]
    state: State
    changed_from: int | None
    changed_to: int | None
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    ring: tuple[tuple[float, float], ...]
    area_m2: float | None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """The tiles that changed between two dates that follow each other (counted from 0).

    ``share`` is of the ``compared`` tiles that both dates show, with Wilson's 95 % interval. ``evident`` says that more
    changed than the false alarms explain (a binomial test at 5 %, divided by the number of intervals).
    """

    before: int
    after: int
    compared: int
    changed: int
    share: float
    low: float
    high: float
    evident: bool


class Point(msgspec.Struct, frozen=True):
    """A label at one date: the tiles that it won, of those that the date shows, with Wilson's 95 % interval."""

    tiles: int
    shown: int
    share: float
    low: float
    high: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A label over the dates; ``first_seen`` and ``last_seen`` are dates (counted from 0), absent for "unknown".

    A label that is not seen may still be there: the tiles of that date may be unknown, or not shown.
    """

    label: str
    points: tuple[Point, ...]
    first_seen: int | None
    last_seen: int | None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One ground at several dates, the earliest first. ``model_sha256`` and ``bank_sha256`` are of tensors and bank."""

    schema: int
    kind: Literal["pictures", "flights"]
    model: str
    bank: str
    model_sha256: str
    bank_sha256: str
    dates: tuple[Date, ...]
    limits: Limits
    rows: int
    columns: int
    tiles: tuple[TileSeries, ...]
    intervals: tuple[Interval, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
