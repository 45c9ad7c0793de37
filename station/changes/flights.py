"""Comparing two flights over one ground: tiles joined by their footprints, from the embeddings that were recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.directory import JOURNAL
from overflight.station.changes.record import SCHEMA, Changes, Hashes, Limits, TileChange
from overflight.station.changes.register import Registration
from overflight.station.changes.score import FALSE_ALARM, Background, fit_background
from overflight.station.describe.describe import cover_group, recorded
from overflight.station.describe.fields import MARGIN
from overflight.station.ground.footprints import LEAST_OVERLAP, same_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Manifest
    from overflight.runtime.records import Observation
    from overflight.station.ground.tiles import Tile

_SPREADS = 6.0  # robust spreads above the median, where no background pair is given
_LOW_SPREADS = 3.0
_LEAST_LIMIT = 0.02  # embeddings are kept in 16 bits: two flights of one film differ by rounding alone


def compare_flights(
    before: Path,
    after: Path,
    bank: LabelBank,
    manifest: Manifest,
    *,
    background: Sequence[tuple[Path, Path]] = (),
    false_alarm: float = FALSE_ALARM,
    margin: float = MARGIN,
) -> Changes:
    """Compare two flights tile by tile of the later one. Raises UsageError where no footprints overlap.

    Without background pairs the limits come from the pair itself: most of the ground is taken to be unchanged.
    """
    first, second, tiles, error_m, missing = _joined(before, after, manifest)
    given = joined_pairs(background, manifest)
    fitted = fit_background(given, false_alarm=false_alarm) if given else own_limits(first, second)
    scores = fitted.scores(first, second)
    changed = scores > fitted.high
    group = cover_group(bank, margin)
    made = []
    for tile, score, is_changed, one, two in zip(tiles, scores, changed, first, second, strict=True):
        labels = group.judge(one).label, group.judge(two).label
        flip = bool(is_changed) and None not in labels and labels[0] != labels[1]
        made.append(_tile(tile, float(score), bool(is_changed), labels, flip=flip))
    flips = Counter((tile.before or "", tile.after or "") for tile in made if tile.flip)
    return Changes(
        schema=SCHEMA,
        before=str(before),
        after=str(after),
        model=manifest.name,
        bank=bank.header.name,
        hashes=Hashes(manifest.tower, bank.sha256, hash_file(before / JOURNAL), hash_file(after / JOURNAL)),
        registration=Registration("footprints", error_m=round(error_m, 2)),
        limits=Limits(
            round(fitted.high, 5),
            round(fitted.low, 5),
            false_alarm,
            fitted.origin,
            fitted.tiles,
            len(fitted.directions),
        ),
        rows=1,
        columns=1,
        tiles=tuple(made),
        missing_tiles=missing,
        changed_tiles=int(changed.sum()),
        changed_share=round(float(changed.mean()), 4),
        changed_area_m2=None,  # frames of a flight overlap: their tiles would be counted twice
        area_error_m2=None,
        flips=tuple((one, two, count) for (one, two), count in flips.most_common()),
        notes=() if given else ("limits from the pair itself: most of the ground was taken to be unchanged",),
    )


def joined_pairs(
    pairs: Sequence[tuple[Path, Path]], manifest: Manifest
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the embeddings of the tiles that each pair of flights shows both times."""
    return [_joined(*pair, manifest)[:2] for pair in pairs]


def own_limits(first: NDArray[np.float32], second: NDArray[np.float32]) -> Background:
    """Fit limits to the pair itself, by its median and spread: most of the ground is taken to be unchanged."""
    none = Background(np.empty((0, first.shape[1]), np.float32), 0.0, 0.0, "pair", len(first))
    scores = none.scores(first, second)
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    high, low = (middle + spreads * spread for spreads in (_SPREADS, _LOW_SPREADS))
    return replace(none, high=max(_LEAST_LIMIT, high), low=max(_LEAST_LIMIT / 2, low))


def _joined(
    before: Path, after: Path, manifest: Manifest
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[Tile], float, int]:
    """Return the embeddings of tiles that show one ground, the later tiles, the places' error, and those without."""
    _, earlier, old_tiles, old_seen = recorded(before, manifest.width)
    _, later, new_tiles, new_seen = recorded(after, manifest.width)
    rows = same_tiles([tile.ring for tile in old_tiles], [tile.ring for tile in new_tiles])
    found = np.flatnonzero(rows >= 0)
    if not len(found):
        raise UsageError(
            f"{before} and {after}: no footprint of the second overlaps one of the first by {LEAST_OVERLAP:.0%}; "
            "fly over the same ground with --pose"
        )
    error_m = float(np.hypot(places_error_m(old_seen), places_error_m(new_seen)))
    missing = len(rows) - len(found)
    return earlier[rows[found]], later[found], [new_tiles[row] for row in found], error_m, missing


def places_error_m(seen: Sequence[Observation]) -> float:
    """Return the median error of a flight's places, 0 where it has none."""
    errors = [one.place.error_m for one in seen if one.place is not None]
    return float(np.median(errors)) if errors else 0.0


def _tile(tile: Tile, score: float, changed: bool, labels: tuple[str | None, str | None], *, flip: bool) -> TileChange:
    return TileChange(
        row=tile.row,
        column=tile.column,
        score=round(score, 5),
        changed=changed,
        before=labels[0],
        after=labels[1],
        flip=flip,
        left_px=tile.left,
        top_px=tile.top,
        width_px=tile.width,
        height_px=tile.height,
        ring=tile.ring,
        area_m2=None,
    )
