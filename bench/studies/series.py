"""Whether a series names the interval in which its ground changed: python -m overflight.bench.studies.series.

Needs ``../shared/data/levir_cd`` and ``neon_pairs``. Each series has four dates: the earlier picture, the same in other
light, the later picture, and the same in other light. So the LEVIR pairs changed between the second and the third date
and never else; the NEON pairs, which a season alone altered, never. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.studies.changes import COVERED, SIDE, covered_shares, embed_pairs, read_levir, read_neon, tiles_of
from overflight.station.changes.score import FALSE_ALARM, Background, fit_background, other_light
from overflight.station.ground.towers import image_tower, open_bundle
from overflight.station.series.follow import Followed, Stack, follow, intervals, steps_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.station.ground.tiles import Embed
    from overflight.station.series.record import Interval

CHANGED = (1, 2)  # the dates between which a LEVIR series changed
_DARKER, _WARMER = 0, 2  # places in other_light


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    levir, neon = read_levir(given.data), read_neon(given.data)
    with image_tower(bundle) as embed:
        season = embed_pairs(neon, embed)
        changed = [embed_series(a, b, embed) for a, b, _ in levir]
        still = [embed_series(a, b, embed) for a, b in neon]
    pairs = fit_background(season)
    held_out = [fit_background([*season[:n], *season[n + 1 :]]) for n in range(len(season))]
    print(json.dumps({
        "model": bundle.manifest.name,
        "changed once": answers(changed, [pairs] * len(changed), covered_shares(levir)),
        "season only": answers(still, held_out, np.zeros((len(still), SIDE * SIDE))),
    }, indent=1))  # fmt: skip


def embed_series(before: NDArray[np.uint8], after: NDArray[np.uint8], embed: Embed) -> NDArray[np.float32]:
    """Return the embeddings ``[4, T, D]`` of the four dates that a pair stands for."""
    dates = [before, other_light(before)[_DARKER], after, other_light(after)[_WARMER]]
    return np.stack([embed(tiles_of(one)) for one in dates])


def answers(
    series: Sequence[NDArray[np.float32]], backgrounds: Sequence[Background], covered: NDArray[np.float64]
) -> dict[str, Any]:
    """Count what is said of tiles under the mask, of the other tiles, and of whole series."""
    cells = tuple((row, column) for row in range(SIDE) for column in range(SIDE))
    found: dict[str, Counter[str]] = {"tiles under the mask": Counter(), "other tiles": Counter()}
    named = Counter({"right interval": 0, "another interval": 0, "none": 0})
    for embeddings, background, shares in zip(series, backgrounds, covered, strict=True):
        stack = Stack(embeddings, np.ones(embeddings.shape[:2], bool), cells)
        steps = steps_of(stack, background)
        for tile, share in zip(follow(stack, steps, background), shares, strict=True):
            found["tiles under the mask" if share > COVERED else "other tiles"][said_of(tile)] += 1
        named.update(named_intervals(intervals(steps, background.high, FALSE_ALARM)))
    return {name: dict(counts) for name, counts in found.items()} | {"series": len(series), "named": dict(named)}


def said_of(tile: Followed) -> str:
    """Return which interval a tile's change was put into."""
    if tile.changed_to is None:
        return "unchanged"
    if tile.state == "gradual":
        return "cannot tell when"
    return "right interval" if (tile.changed_from, tile.changed_to) == CHANGED else "another interval"


def named_intervals(found: Sequence[Interval]) -> Counter[str]:
    """Return which intervals of one series are evident."""
    evident = [one for one in found if one.evident]
    right = sum((one.before, one.after) == CHANGED for one in evident)
    return Counter({"right interval": right, "another interval": len(evident) - right, "none": int(not evident)})


if __name__ == "__main__":
    main()
