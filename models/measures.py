"""The figures of the card from plain arrays that evaluation does not have, such as the fitted sigmoid."""

from __future__ import annotations

import math

import numpy as np


def top1(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of rows of `scores` `[N, K]` whose largest column is the truth."""
    return float((scores.argmax(1) == truth).mean())


def recall(scores: np.ndarray, positive: np.ndarray, depth: int) -> float:
    """Return the share of rows with at least one positive among their `depth` best columns.

    Of equal scores, such as those of a caption that several pictures have, it takes any. `overflight evaluate` keeps
    the order of the columns instead; the card's figures were made with this one, and differ from it by up to 0.004.
    """
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
