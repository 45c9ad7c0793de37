"""The time series of one ground: from sources to what changed when, and what each label did."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.station.archive.sources import is_flight
from overflight.station.changes.compare import embed_given
from overflight.station.changes.flights import joined_pairs, own_limits
from overflight.station.changes.record import Limits
from overflight.station.changes.score import FALSE_ALARM, Background, fit_background
from overflight.station.describe.describe import cover_group
from overflight.station.describe.fields import MARGIN
from overflight.station.series.flights import see_flights
from overflight.station.series.follow import UNKNOWN, Followed, curves, follow, intervals, steps_of
from overflight.station.series.pictures import Seen, see_pictures
from overflight.station.series.record import SCHEMA, Date, Series, TileSeries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Manifest
    from overflight.station.ground.tiles import Embed, Tile
    from overflight.station.series.dates import Dated

FEWEST_DATES = 3


@dataclass(frozen=True)
class Result:
    """A series with the small pictures of its dates, RGB; None for flights."""

    series: Series
    views: tuple[NDArray[np.uint8] | None, ...]


def follow_sources(
    paths: Sequence[Path],
    bank: LabelBank,
    manifest: Manifest,
    embed: Embed,
    *,
    dates: Sequence[Dated] = (),
    background: Sequence[tuple[Path, Path]] = (),
    tile_px: int | None = None,
    gsd_m: float | None = None,
    false_alarm: float = FALSE_ALARM,
    margin: float = MARGIN,
) -> Result:
    """Follow pictures, mosaics or flights over their dates. Raises UsageError where they have no order or place."""
    if len(paths) < FEWEST_DATES:
        raise UsageError(
            f"{len(paths)} sources, expected {FEWEST_DATES} or more; two are compared by overflight changes"
        )
    if dates and len(dates) != len(paths):
        raise UsageError(f"--date: {len(dates)} dates for {len(paths)} sources; give one for each, in their order")
    kinds = {is_flight(path) for path in paths}
    if len(kinds) > 1:
        raise UsageError("flights and pictures cannot be followed together; name sources of one kind")
    if kinds == {True}:
        if gsd_m is not None or tile_px is not None:
            raise UsageError("--gsd and --tile are for pictures: a flight has its own footprints and tiles")
        seen = see_flights(paths, dates, manifest.width)
        pairs = joined_pairs(background, manifest)
    else:
        pairs = [embed_given(*pair, manifest, embed, tile_px, gsd_m) for pair in background]
        seen = see_pictures(
            paths, dates, manifest.resize.side, embed, tile_px=tile_px, gsd_m=gsd_m, light=not background
        )
    fitted, note = _background(seen, pairs, false_alarm)
    series = summarise(seen, fitted, bank, manifest, false_alarm, margin)
    return Result(msgspec.structs.replace(series, notes=(*series.notes, *note)), tuple(one.view for one in seen.dates))


def _background(
    seen: Seen, pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], false_alarm: float
) -> tuple[Background, tuple[str, ...]]:
    """Fit what season and light do: to the given pairs, to the first date in other light, or to the steps."""
    if pairs:
        return fit_background(pairs, false_alarm=false_alarm), ()
    if seen.light is not None:
        note = "no background pairs: the limits know light and no season, so a season counts as a change"
        return fit_background([seen.light], origin="light", false_alarm=false_alarm), (note,)
    before, after = [], []
    for one, two in pairwise(range(len(seen.dates))):
        both = seen.stack.known[one] & seen.stack.known[two]
        before.append(seen.stack.embeddings[one, both])
        after.append(seen.stack.embeddings[two, both])
    note = "limits from the steps themselves: most of the ground was taken to be unchanged"
    return own_limits(np.concatenate(before), np.concatenate(after)), (note,)


def summarise(
    seen: Seen, background: Background, bank: LabelBank, manifest: Manifest, false_alarm: float, margin: float = MARGIN
) -> Series:
    """Follow the tiles, label them at every date, and sum up."""
    stack = seen.stack
    steps = steps_of(stack, background)
    group = cover_group(bank, margin)
    labels = [
        tuple(
            (group.judge(stack.embeddings[date, tile]).label or UNKNOWN) if stack.known[date, tile] else None
            for date in range(len(seen.dates))
        )
        for tile in range(len(seen.tiles))
    ]
    followed = follow(stack, steps, background)
    return Series(
        schema=SCHEMA,
        kind="flights" if stack.cells is None else "pictures",
        model=manifest.name,
        bank=bank.header.name,
        model_sha256=manifest.tower,
        bank_sha256=bank.sha256,
        dates=tuple(
            Date(
                date=one.dated.text,
                origin=one.dated.origin,
                source=one.source,
                sha256=one.sha256,
                registration=one.registration,
                missing_tiles=int((~known).sum()),
            )
            for one, known in zip(seen.dates, stack.known, strict=True)
        ),
        limits=Limits(
            round(background.high, 5),
            round(background.low, 5),
            false_alarm,
            background.origin,
            background.tiles,
            len(background.directions),
        ),
        rows=seen.shape[0],
        columns=seen.shape[1],
        tiles=tuple(_tile(*one) for one in zip(seen.tiles, labels, followed, strict=True)),
        intervals=tuple(intervals(steps, background.high, false_alarm)),
        curves=tuple(curves(labels)),
        notes=seen.notes,
    )


def _tile(tile: Tile, labels: tuple[str | None, ...], followed: Followed) -> TileSeries:
    return TileSeries(
        row=tile.row,
        column=tile.column,
        labels=labels,
        scores=followed.scores,
        state=followed.state,
        changed_from=followed.changed_from,
        changed_to=followed.changed_to,
        left_px=tile.left,
        top_px=tile.top,
        width_px=tile.width,
        height_px=tile.height,
        ring=tile.ring,
        area_m2=None if tile.area_m2 is None else round(tile.area_m2, 3),
    )
