"""Measures from plain arrays, each with its 95 % interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.export.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_RESAMPLES = 1000


class Measure(NamedTuple):
    """A value with its 95 % interval, and of how many samples it is."""

    value: float
    low: float
    high: float
    samples: int


def share(right: NDArray[np.bool_]) -> Measure:
    """Return a share of right answers with Wilson's interval. Raises ValueError without samples."""
    total = len(right)
    if not total:
        raise ValueError("no samples: a share needs at least one")
    return Measure(float(right.mean()), *wilson(int(right.sum()), total), total)


def resampled(values: NDArray[np.float64], of: Callable[[NDArray[np.float64]], float], seed: int = 0) -> Measure:
    """Return ``of(values)`` with the interval of 1,000 bootstrap resamples of the rows."""
    chance = np.random.default_rng(seed)
    draws = [of(values[chance.integers(len(values), size=len(values))]) for _ in range(_RESAMPLES)]
    low, high = np.percentile(draws, (2.5, 97.5))
    return Measure(of(values), float(low), float(high), len(values))


def of_draws(values: list[float]) -> Measure:
    """Return the mean of independent draws with Student's interval."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 10: 2.262}
    mean = float(np.mean(values))
    if len(values) < 2:
        return Measure(mean, mean, mean, len(values))
    half = t.get(len(values), 2.1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Measure(mean, mean - half, mean + half, len(values))


def recall_at(scores: NDArray[np.float32], positive: NDArray[np.bool_], depth: int) -> NDArray[np.bool_]:
    """Say of each row of ``scores`` ``[N, M]`` whether a positive is among its ``depth`` best columns.

    As RemoteCLIP and CLIP_benchmark count: one hit is enough. Equal scores keep the order of the columns.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return np.asarray(np.take_along_axis(positive, best, axis=1).any(axis=1), np.bool_)


def calibration_error(probability: NDArray[np.float64], right: NDArray[np.float64], bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al., 2015)."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for number in np.unique(place):
        inside = place == number
        error += abs(float(right[inside].mean()) - float(probability[inside].mean())) * float(inside.mean())
    return error


def mean_iou(overlaps: NDArray[np.float64]) -> float:
    """Return the mean of intersection over union, from rows of (intersection, union) in pixels."""
    return float((overlaps[:, 0] / np.maximum(overlaps[:, 1], 1)).mean())


def cumulative_iou(overlaps: NDArray[np.float64]) -> float:
    """Return the sum of intersections over the sum of unions: large objects count more."""
    return float(overlaps[:, 0].sum() / max(1.0, float(overlaps[:, 1].sum())))
