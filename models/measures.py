"""The figures of the card from plain arrays: accuracy, recall, AUROC, calibration error."""

from __future__ import annotations

import math

import numpy as np

Z95 = 1.959964


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    if total == 0:
        raise ValueError("no samples: an interval needs at least one")
    share, square = right / total, Z95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    half /= 1 + square / total
    return middle - half, middle + half


def top1(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of rows of `scores` `[N, K]` whose largest column is the truth."""
    return float((scores.argmax(1) == truth).mean())


def recall(scores: np.ndarray, positive: np.ndarray, depth: int) -> float:
    """Return the share of rows with at least one positive among their `depth` best columns."""
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    return float(np.take_along_axis(positive, best, axis=1).any(1).mean())


def confusion(guess: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """Return counts `[truth, guess]`."""
    table = np.zeros((count, count), dtype=np.int64)
    np.add.at(table, (truth, guess), 1)
    return table


def vote(
    known: np.ndarray,
    label: np.ndarray,
    query: np.ndarray,
    count: int,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Return k-NN class scores `[N, count]`: the k nearest vote with exp(cosine / temperature)."""
    cosines = query @ known.T
    near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    weight = np.exp(np.take_along_axis(cosines, near, axis=1) / temperature)
    scores = np.zeros((len(query), count))
    for column in range(k):
        np.add.at(scores, (np.arange(len(query)), label[near[:, column]]), weight[:, column])
    return scores


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Return the chance that a known sample scores above an unknown one, ties counted half."""
    joint = np.concatenate([known, unknown])
    _, inverse, counts = np.unique(joint, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[: len(known)].sum() - len(known) * (len(known) + 1) / 2
    return float(above / (len(known) * len(unknown)))


def calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            gap = abs(float(right[inside].mean()) - float(probability[inside].mean()))
            error += gap * float(inside.mean())
    return error


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the logistic function, stable for large logits."""
    half: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return half


def fit_sigmoid(cosines: np.ndarray, positive: np.ndarray, rounds: int = 100) -> tuple[float, float]:
    """Return (scale, bias) of the logistic regression of `positive` on `cosines`."""
    x, y = cosines.ravel().astype(np.float64), positive.ravel().astype(np.float64)
    scale, bias = 10.0, math.log(y.mean() / (1 - y.mean()))
    for _ in range(rounds):
        p = sigmoid(scale * x + bias)
        weight, miss = p * (1 - p) + 1e-12, p - y
        gradient = np.array([(miss * x).sum(), miss.sum()]) + np.array([1e-3 * scale, 0.0])
        cross = (weight * x).sum()
        hessian = np.array([[(weight * x * x).sum() + 1e-3, cross], [cross, weight.sum()]])
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 5.0 / float(np.abs(step).max()))
        scale, bias = scale - float(step[0]), bias - float(step[1])
        if float(np.abs(step).max()) < 1e-6:
            break
    return scale, bias
