"""Retrieval between pictures and captions, counted as RemoteCLIP's retrieval.py and CLIP_benchmark count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.station.evaluate.measures import Measure, recall_at, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DEPTHS = (1, 5, 10)


def as_queries(captions: Sequence[Sequence[str]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return every caption, its first letter capital and the others small, and the picture that it belongs to.

    Texts are neither made unique nor stripped of their points: both change the result by several points.
    """
    texts = [text.capitalize() for several in captions for text in several]
    owner = np.repeat(np.arange(len(captions)), [len(several) for several in captions])
    return texts, owner


def retrieval(
    pictures: NDArray[np.float32], texts: NDArray[np.float32], owner: NDArray[np.int64]
) -> dict[str, Measure]:
    """Return R@1, R@5 and R@10 from pictures to texts and back, and the mean of the six (mean recall)."""
    return recalls(pictures @ texts.T, owner)


def recalls(scores: NDArray[np.float32], owner: NDArray[np.int64]) -> dict[str, Measure]:
    """Return the measures of a matrix of scores ``[pictures, texts]``."""
    positive = owner[None] == np.arange(len(scores))[:, None]
    found: dict[str, Measure] = {}
    for name, matrix, right in (("I2T", scores, positive), ("T2I", scores.T, positive.T)):
        for depth in DEPTHS:
            found[f"{name} R@{depth}"] = share(recall_at(matrix, right, depth))
    mean = float(np.mean([one.value for one in found.values()]))
    found["mean recall"] = _mean_interval(scores, positive, mean)
    return found


def _mean_interval(scores: NDArray[np.float32], positive: NDArray[np.bool_], mean: float, seed: int = 0) -> Measure:
    """The interval of 1,000 resamples of the queries, the gallery unchanged."""
    ways = []
    for matrix, right in ((scores, positive), (scores.T, positive.T)):
        hits = np.mean([recall_at(matrix, right, depth) for depth in DEPTHS], axis=0)
        ways.append(hits.astype(np.float64))
    chance = np.random.default_rng(seed)
    draws = [
        float(np.mean([hits[chance.integers(len(hits), size=len(hits))].mean() for hits in ways])) for _ in range(1000)
    ]
    low, high = np.percentile(draws, (2.5, 97.5))
    return Measure(mean, float(low), float(high), len(scores))
