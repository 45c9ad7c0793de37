"""Statistics of scores and shares, without a library: what examples, evaluation, descriptions and studies report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z95 = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def auroc(positive: NDArray[np.floating[Any]], negative: NDArray[np.floating[Any]]) -> float:
    """Return the probability that a positive scores higher than a negative, ties counted as half (Mann-Whitney)."""
    ordered = np.sort(negative)
    below, not_above = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(positive) * len(negative)))  # whole numbers, rounded once


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927, "Probable inference"); 0 to 1 where nothing was counted."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, Z95 * Z95
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return 0.0 if hits == 0 else max(0.0, middle - half), 1.0 if hits == count else min(1.0, middle + half)
