"""Spread: percentiles of samples, and ratios of pairs with their confidence interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Change = Literal["faster", "same", "slower", "unclear"]

_BLOCKS = 20  # neighbours in time share their disturbances: a block of them counts as one observation
_DOUBT = 0.01  # chance that the true median lies outside the range


def say(value: float) -> str:
    """Write a figure with three digits, or whole where it has more: 0.0503, 7.82, 1220."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


class Spread(msgspec.Struct, frozen=True):
    """A sample's distribution, in the unit of the samples."""

    count: int
    best: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    worst: float
    mean: float

    @classmethod
    def of(cls, samples: Sequence[int]) -> Spread:
        """Describe samples. Raises UsageError where there are none."""
        if not samples:
            raise UsageError("no samples to describe; a subject that could not run has a reason instead")
        best, p50, p90, p95, p99, p999, worst = (
            float(value) for value in np.percentile(samples, [0, 50, 90, 95, 99, 99.9, 100])
        )
        return cls(len(samples), best, p50, p90, p95, p99, p999, worst, float(np.mean(samples)))


class Ratio(msgspec.Struct, frozen=True):
    """A over B, pair by pair: the median, and its 99 % confidence interval."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"

    @property
    def half_width(self) -> float:
        """Half the range, as a share of the median: the noise of this comparison."""
        return (self.high - self.low) / 2 / self.median


def ratio(ours: Sequence[int], theirs: Sequence[int]) -> Ratio:
    """Divide sample by sample; both were taken in turns. Raises UsageError where they were not.

    The range is the distribution-free one of order statistics (Conover, "Practical Nonparametric Statistics", 3.2) over
    medians of blocks of neighbouring pairs.
    """
    if len(ours) != len(theirs) or not ours:
        raise UsageError(f"{len(ours)} samples against {len(theirs)}: pairs need samples taken in turns, in one run")
    pairs = np.asarray(ours, np.float64) / np.asarray(theirs, np.float64)
    blocks = np.sort([np.median(part) for part in np.array_split(pairs, min(len(pairs), _BLOCKS))])
    cut = _outer(len(blocks))
    return Ratio(float(np.median(pairs)), float(blocks[cut]), float(blocks[-1 - cut]), len(pairs))


def judge(found: Ratio, tolerance: float) -> Change:
    """Say whether A is slower or faster than B by more than ``tolerance`` (0.05 is 5 %), or the same within it.

    It is unclear where the interval contains one of the two bounds: more pairs make it narrower.
    """
    if found.low > 1 + tolerance:
        return "slower"
    if found.high < 1 / (1 + tolerance):
        return "faster"
    return "same" if found.low >= 1 / (1 + tolerance) and found.high <= 1 + tolerance else "unclear"


def _outer(count: int) -> int:
    """How many of ``count`` sorted observations may be left out at each end: 0 where there are too few for any."""
    chance, cut = 0.5**count, 0
    while chance + math.comb(count, cut + 1) * 0.5**count <= _DOUBT / 2 and cut + 1 < count // 2:
        cut += 1
        chance += math.comb(count, cut) * 0.5**count
    return cut
