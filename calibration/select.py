"""Selection of a small set of frames that covers the sources, and of a separate hold-out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.duplicates import SAME, difference_hash, distance, emptiness, hash_pixels
from overflight.runtime.evaluation.frame_sampler import FrameSampler
from overflight.runtime.evaluation.holdout import PickedFrame
from overflight.runtime.log import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Resize
    from overflight.runtime.evaluation.frame_sampler import SampledFrame

    Report = Callable[[float], None]

FEWEST = 32  # distinct frames, of which a third is held out
_PER_CHOSEN = 2  # candidates looked at for each frame that is chosen
_LEAST_LOOKED_AT = 800  # so that a hold-out of 256 resolves a share of one in a hundred
_BRIGHTNESS = ("dark", "medium", "bright")


@dataclass(slots=True)
class Candidates:
    """Distinct frames uint8 ``[N, S, S, 3]`` with their description; ``refused`` counts the others, by reason."""

    frames: NDArray[np.uint8]
    described: list[PickedFrame]
    refused: dict[str, int] = field(default_factory=dict)


def find_candidates(sources: Sequence[str], resize: Resize, count: int, report: Report) -> Candidates:
    """Read frames evenly spread over the sources, and pass over copies and frames that show nothing.

    Raises UsageError where too little is left: random or constant frames calibrate nothing.
    """
    gatherer = FrameSampler(sources, resize, max(_LEAST_LOOKED_AT, _PER_CHOSEN * count))
    total = min(gatherer.found, gatherer.limit)
    kept: list[SampledFrame] = []
    hashes: list[int] = []
    refused: dict[str, int] = {}
    for index, frame in enumerate(gatherer.frames()):
        report(min(1.0, (index + 1) / total))
        likeness = difference_hash(frame.pixels)
        why: str | None = emptiness(frame.pixels)
        if why is None and hashes and (distance(likeness, np.array(hashes, np.uint64)) <= SAME).any():
            why = "copy"
        if why is not None:
            refused[why] = refused.get(why, 0) + 1
            continue
        kept.append(frame)
        hashes.append(likeness)
    refused |= gatherer.skipped
    for reason in gatherer.unreadable:
        say("unreadable", reason=reason)
    if len(kept) < FEWEST:
        reasons = ", ".join(f"{number} {why}" for why, number in sorted(refused.items())) or "none refused"
        raise UsageError(
            f"{len(kept)} distinct frames that show something ({reasons}), at least {FEWEST} are needed: "
            "name more or longer flights, videos or folders"
        )
    described = [_describe(frame, likeness) for frame, likeness in zip(kept, hashes, strict=True)]
    return Candidates(np.stack([frame.pixels for frame in kept]), described, refused)


def _describe(frame: SampledFrame, likeness: int) -> PickedFrame:
    return PickedFrame(
        source=frame.source,
        number=frame.number,
        sha256=hash_pixels(frame.pixels),
        likeness=f"{likeness:016x}",
        brightness=round(float(frame.pixels.mean()), 1),
        part="",
        stratum="",
        name=frame.name,
        media_ns=frame.media_ns,
        folder=frame.folder,
        height_m=frame.height_m,
    )


def part_sizes(available: int, count: int) -> tuple[int, int, int]:
    """Return how many frames go into ranges, tuning and hold-out: ``count`` at most, less where there are fewer."""
    holdout = min(max(256, count), available // 3)
    tuning = min(max(16, count // 8), available // 8)
    return min(count, available - holdout - tuning), tuning, holdout


def divide(candidates: Candidates, embeddings: NDArray[np.float32], count: int) -> list[PickedFrame | None]:
    """Give every candidate its part, or None: the same order as the candidates.

    Tuning and hold-out are drawn at random, because they represent the flights to come. The frames that ranges are
    read from are the k-centres of the rest, so that rare sights are among them (Gonzalez, 1985), in equal shares from
    each stratum: thirds of brightness, and low or high where heights are known.
    """
    ranges, tuning, holdout = part_sizes(len(candidates.described), count)
    order = np.random.default_rng(0).permutation(len(candidates.described))
    strata = _strata(candidates.described)
    chosen: dict[int, str] = dict.fromkeys(map(int, order[:holdout]), "holdout")
    chosen |= dict.fromkeys(map(int, order[holdout : holdout + tuning]), "tuning")
    rest = order[holdout + tuning :]
    names = sorted({strata[index] for index in rest})
    for number, stratum in enumerate(names):
        pool = np.array([index for index in rest if strata[index] == stratum], np.int64)
        left = ranges - sum(part == "ranges" for part in chosen.values())
        share = left // (len(names) - number)
        chosen |= dict.fromkeys(map(int, pool[k_centres(embeddings[pool], share)]), "ranges")
    missing = ranges - sum(part == "ranges" for part in chosen.values())
    pool = np.array([index for index in rest if int(index) not in chosen], np.int64)
    if missing and len(pool):
        chosen |= dict.fromkeys(map(int, pool[k_centres(embeddings[pool], missing)]), "ranges")
    return [
        msgspec.structs.replace(one, part=chosen[index], stratum=strata[index]) if index in chosen else None
        for index, one in enumerate(candidates.described)
    ]


def _strata(described: Sequence[PickedFrame]) -> list[str]:
    levels = np.array([one.brightness for one in described])
    dark, bright = np.quantile(levels, [1 / 3, 2 / 3])
    heights = [one.height_m for one in described if one.height_m is not None]
    middle = float(np.median(heights)) if heights else 0.0

    def name(one: PickedFrame) -> str:
        light = _BRIGHTNESS[int(one.brightness > dark) + int(one.brightness > bright)]
        return light if one.height_m is None else f"{light}, {'high' if one.height_m > middle else 'low'}"

    return [name(one) for one in described]


def k_centres(embeddings: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return ``count`` rows, each the farthest from those before it, beginning with the most ordinary one."""
    if count <= 0 or not len(embeddings):
        return np.empty(0, np.int64)
    mean = embeddings.mean(axis=0)
    picked = [int((embeddings @ mean).argmax())]
    nearest = embeddings @ embeddings[picked[0]]
    while len(picked) < min(count, len(embeddings)):
        nearest[picked[-1]] = np.inf
        picked.append(int(nearest.argmin()))
        np.maximum(nearest, embeddings @ embeddings[picked[-1]], out=nearest)
    return np.array(picked, np.int64)
