"""Open set and calibration: whether scores say that nothing fits, and how often they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.statistics import auroc
from overflight.station.evaluate.measures import Measure, calibration_error, resampled, share

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY = 5  # this class and every fifth after it have no text
FALSE_ALARM = 0.05


def open_set(
    pictures: NDArray[np.float32], classes: NDArray[np.float32], truth: NDArray[np.int64]
) -> dict[str, Measure]:
    """Leave every fifth class without a text, and return how well the best cosine tells its pictures from the others.

    AUROC, and the share of known pictures that stay above the score that 5 % of the unknown ones reach.
    """
    kept = np.arange(len(classes)) % EVERY != 0
    known, best = kept[truth], (pictures @ classes[kept].T).max(axis=1)
    limit = np.quantile(best[~known], 1 - FALSE_ALARM)
    return {
        "AUROC of the best cosine": _area(best[known], best[~known]),
        "known kept at 5 % false": share(best[known] > limit),
    }


def _area(known: NDArray[np.float32], unknown: NDArray[np.float32], seed: int = 0) -> Measure:
    """Return the AUROC with the interval of 1,000 resamples inside each of the two groups."""
    chance = np.random.default_rng(seed)
    draws = [
        auroc(
            known[chance.integers(len(known), size=len(known))],
            unknown[chance.integers(len(unknown), size=len(unknown))],
        )
        for _ in range(1000)
    ]
    low, high = np.percentile(draws, (2.5, 97.5))
    return Measure(auroc(known, unknown), float(low), float(high), len(known) + len(unknown))


def calibration(
    pictures: NDArray[np.float32],
    classes: NDArray[np.float32],
    truth: NDArray[np.int64],
    scale: float,
    bias: float,
) -> dict[str, Measure]:
    """Return the expected calibration error of the best class's softmax share and of its sigmoid score."""
    logits = (scale * (pictures @ classes.T)).astype(np.float64)
    best = logits.argmax(axis=1)
    right = (best == truth).astype(np.float64)
    top = logits[np.arange(len(logits)), best]
    softmax = 1.0 / np.exp(logits - top[:, None]).sum(axis=1)
    sigmoid = 0.5 * (1.0 + np.tanh(0.5 * (top + bias)))

    def error(sample: NDArray[np.float64]) -> float:
        return calibration_error(sample[:, 0], sample[:, 1])

    return {
        "ECE of softmax": resampled(np.stack([softmax, right], axis=1), error),
        "ECE of sigmoid score": resampled(np.stack([sigmoid, right], axis=1), error),
    }
