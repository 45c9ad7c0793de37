"""Classification on frozen embeddings: zero-shot, linear probe, nearest neighbours, few examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import UsageError, missing_extra
from overflight.station.evaluate.measures import Measure, of_draws, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NEIGHBOURS, TEMPERATURE = 20, 0.07
SHOTS = (1, 4, 8, 16, 32)
DRAWS = 5
# CLIP's search: from 1e-6 to 1e6, 96 steps in logarithm; here the grid of its first pass, then two halvings.
_FIRST = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)
_HALVINGS = 2
MOST_ITERATIONS = 1000


def zero_shot(pictures: NDArray[np.float32], classes: NDArray[np.float32], truth: NDArray[np.int64]) -> Measure:
    """Return top-1 of the class whose text is nearest; scale and bias do not change which that is."""
    return share((pictures @ classes.T).argmax(axis=1) == truth)


def neighbours(
    known: NDArray[np.float32], labels: NDArray[np.int64], query: NDArray[np.float32], truth: NDArray[np.int64]
) -> Measure:
    """Return top-1 of 20 nearest neighbours that vote with exp(cosine / 0.07) (Wu et al., 2018)."""
    cosines, count = query @ known.T, int(max(labels.max(), truth.max())) + 1
    k = min(NEIGHBOURS, len(known))
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(query), count))
    weights = np.exp(np.take_along_axis(cosines, near, axis=1) / TEMPERATURE)
    np.add.at(votes, (np.arange(len(query))[:, None], labels[near]), weights)
    return share(votes.argmax(axis=1) == truth)


def linear_probe(
    known: NDArray[np.float32],
    labels: NDArray[np.int64],
    query: NDArray[np.float32],
    truth: NDArray[np.int64],
    seed: int = 0,
) -> tuple[Measure, float]:
    """Return top-1 of a logistic regression and its C, by CLIP's protocol.

    L-BFGS, 1,000 iterations at the most, on the embeddings as they are; C is searched on a fifth of the training
    pictures, then the regression is fitted on all of them. Raises MissingError without scikit-learn.
    """
    order = np.random.default_rng(seed).permutation(len(known))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]
    if set(labels[rest]) != set(labels):  # a class of one picture
        raise UsageError("linear probe: a class has too few training pictures; it needs five of each")

    def validated(c: float) -> float:
        return float((_fit(known[rest], labels[rest], c, 300).predict(known[held]) == labels[held]).mean())

    scores = {c: validated(c) for c in _FIRST}
    best = max(scores, key=lambda c: scores[c])
    step = 10.0
    for _ in range(_HALVINGS):
        for c in (best / step, best * step):
            scores.setdefault(c, validated(c))
        best = max(scores, key=lambda c: scores[c])
        step = step**0.5
    return share(_fit(known, labels, best).predict(query) == truth), best


def few_shot(
    known: NDArray[np.float32],
    labels: NDArray[np.int64],
    query: NDArray[np.float32],
    truth: NDArray[np.int64],
    shots: Sequence[int] = SHOTS,
) -> dict[int, Measure]:
    """Return top-1 of a logistic regression (C = 1) of so many examples a class: the mean of five draws."""
    found: dict[int, Measure] = {}
    fewest = int(np.bincount(labels).min())
    for shot in shots:
        if shot > fewest:
            break
        values = []
        for draw in range(DRAWS):
            chance = np.random.default_rng(1000 * shot + draw)
            rows = np.concatenate(
                [chance.choice(np.flatnonzero(labels == one), shot, replace=False) for one in np.unique(labels)]
            )
            values.append(float((_fit(known[rows], labels[rows], 1.0).predict(query) == truth).mean()))
        found[shot] = of_draws(values)
    return found


def _fit(known: NDArray[np.float32], labels: NDArray[np.int64], c: float, iterations: int = MOST_ITERATIONS) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise missing_extra("scikit-learn", "probe") from error
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak C of the search needs not end
        return LogisticRegression(C=c, max_iter=iterations).fit(known, labels)
