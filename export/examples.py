"""Labels from examples: a linear probe on embeddings of pictures becomes a row of a label bank.

A probe's logit is w·x + b for a unit embedding x. With the unit vector w/|w| that is |w|·cosine + b: exactly a label of
bank format 2 with its own scale and bias. So such a label flies like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.export.statistics import auroc, wilson
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Truth = NDArray[np.bool_]
    Fit = Callable[[Vectors, Truth], "Probe"]

Method = Literal["prototype", "ridge", "logistic"]
FEWEST_EXAMPLES, FEWEST_BACKGROUND = 4, 8
FOLDS = 5
DRAWS = 5
SHOTS = (1, 2, 4, 8, 16, 32)
LEAST_AUROC = 0.6  # below it the examples do not differ from the background in any way that a line can hold
SAME = 0.999  # cosine from which an example and a background picture show the same
_RIDGE = 1.0
_BALANCE = 1.0  # the logistic probe's inverse strength of regularisation


@dataclass(frozen=True)
class Probe:
    """A linear probe: its logit is ``weights``·x + ``bias`` for unit embeddings x ``[D]``."""

    weights: Vectors
    bias: float

    def logits(self, vectors: Vectors) -> Vectors:
        """Return the logits ``[N]`` of unit embeddings ``[N, D]``."""
        return np.asarray(vectors @ self.weights + self.bias, np.float32)


class Point(msgspec.Struct, frozen=True):
    """One point of a learning curve: mean and standard deviation of the AUROC over draws of ``shots`` examples."""

    shots: int
    auroc: float
    spread: float


class Measured(msgspec.Struct, frozen=True):
    """What cross-validation measured, on pictures that the probe had not seen.

    ``recall`` and ``false_positive_rate`` are those at a score of 0.5. ``precision`` is the share of right alarms where
    ``prevalence`` of all frames show the label, with its 95 % interval: with few examples it is wide, and says so.
    """

    method: Method
    examples: int
    background: int
    auroc: float
    recall: float
    false_positive_rate: float
    prevalence: float
    precision: float
    precision_low: float
    precision_high: float
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class ExampleLabel:
    """A label made from examples: a unit vector ``[D]`` with its logit scale (a natural logarithm) and bias."""

    vector: Vectors
    logit_scale: float
    logit_bias: float
    measured: Measured


def label_from_examples(
    examples: Vectors, background: Vectors, *, prevalence: float = 0.01, seed: int = 0, text: Vectors | None = None
) -> ExampleLabel:
    """Choose the best probe by cross-validation and make a label of it.

    ``examples`` ``[N, D]`` and ``background`` ``[M, D]`` are unit embeddings; ``text`` ``[D]`` is the label's text
    embedding, which then counts as one more example. Raises UsageError for too few, and for contradictory ones.
    """
    _refuse_bad(examples, background)
    vectors = np.concatenate([examples, background])
    truth = np.arange(len(vectors)) < len(examples)
    fits = _fits(text)
    held_out = {method: _cross_validate(fit, vectors, truth, seed) for method, fit in fits.items()}
    aurocs = {method: auroc(logits[truth], logits[~truth]) for method, logits in held_out.items()}
    method = max(aurocs, key=lambda name: aurocs[name])
    if aurocs[method] < LEAST_AUROC:
        raise UsageError(
            f"the examples cannot be separated from the background (AUROC {aurocs[method]:.2f} in cross-validation); "
            "check that no folder holds pictures of the other, or give more examples"
        )
    slope, offset = _platt(held_out[method], truth)
    probe = fits[method](vectors, truth)
    weights, bias = probe.weights * slope, probe.bias * slope + offset
    norm = max(float(np.linalg.norm(weights)), 1e-6)
    logits = held_out[method] * slope + offset
    measured = _measure(method, logits, truth, prevalence, _curve(fits[method], vectors, truth, seed))
    return ExampleLabel(np.asarray(weights / norm, np.float32), math.log(norm), bias, measured)


def _refuse_bad(examples: Vectors, background: Vectors) -> None:
    if len(examples) < FEWEST_EXAMPLES or len(background) < FEWEST_BACKGROUND:
        raise UsageError(
            f"{len(examples)} examples and {len(background)} background pictures: at least {FEWEST_EXAMPLES} and "
            f"{FEWEST_BACKGROUND} are needed; 16 examples are a good start"
        )
    same = (examples @ background.T >= SAME).any(axis=1)
    if same.any():
        raise UsageError(
            f"{int(same.sum())} of {len(examples)} examples are also in the background (example "
            f"{int(np.flatnonzero(same)[0]) + 1} is the first); a picture cannot be both, remove it from one folder"
        )


def _fits(text: Vectors | None) -> dict[Method, Fit]:
    """Return the probes to choose from; the logistic one where scikit-learn is installed."""
    fits: dict[Method, Fit] = {
        "prototype": lambda vectors, truth: _prototype(vectors, truth, text),
        "ridge": _ridge,
    }
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        return fits
    return {**fits, "logistic": _logistic}


def _prototype(vectors: Vectors, truth: Truth, text: Vectors | None) -> Probe:
    """Return the mean of the examples less the mean of the background; a text counts as one example."""
    wanted = vectors[truth] if text is None else np.concatenate([vectors[truth], text[None]])
    weights = wanted.mean(axis=0) - vectors[~truth].mean(axis=0)
    return Probe(np.asarray(weights, np.float32), 0.0)


def _ridge(vectors: Vectors, truth: Truth) -> Probe:
    """Return the ridge regression of ±1 on centred embeddings, both classes of equal weight, solved over the rows."""
    weight = np.where(truth, 0.5 / max(1, truth.sum()), 0.5 / max(1, (~truth).sum()))
    middle = weight @ vectors
    root = np.sqrt(weight * len(truth))[:, None]
    rows = (vectors - middle) * root
    target = np.where(truth, 1.0, -1.0)[:, None] * root
    dual = np.linalg.solve(rows @ rows.T + _RIDGE * np.eye(len(rows)), target)
    weights = (rows.T @ dual)[:, 0]
    return Probe(np.asarray(weights, np.float32), float(-middle @ weights))


def _logistic(vectors: Vectors, truth: Truth) -> Probe:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=_BALANCE * 10, class_weight="balanced", max_iter=2000).fit(vectors, truth)
    return Probe(np.asarray(fitted.coef_[0], np.float32), float(fitted.intercept_[0]))


def _cross_validate(fit: Fit, vectors: Vectors, truth: Truth, seed: int) -> Vectors:
    """Return every row's logit from a probe that did not see it."""
    order = np.random.default_rng(seed).permutation(len(truth))
    fold = np.empty(len(truth), np.int64)
    for kind in (True, False):  # each fold holds its share of both
        rows = order[truth[order] == kind]
        fold[rows] = np.arange(len(rows)) % min(FOLDS, len(rows))
    logits = np.zeros(len(truth), np.float32)
    for number in range(FOLDS):
        held = fold == number
        if held.any():
            logits[held] = fit(vectors[~held], truth[~held]).logits(vectors[held])
    return logits


def _platt(logits: Vectors, truth: Truth) -> tuple[float, float]:
    """Return slope and offset that turn logits into log odds of a balanced set (Platt, 1999), by Newton's method.

    The targets are Platt's own, drawn in from 0 and 1, so that a perfect separation keeps a finite slope.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2)).astype(np.float64)
    weight = np.where(truth, 0.5 / positives, 0.5 / negatives)
    scale = max(float(np.abs(logits).max()), 1e-9)
    design = np.stack([logits.astype(np.float64) / scale, np.ones(len(logits))], axis=1)
    found = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weight * (chance - target))
        hessian = (design * (weight * chance * (1 - chance))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        found -= np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-9:
            break
    return max(float(found[0]), 1e-3) / scale, float(found[1])


def _measure(method: Method, logits: Vectors, truth: Truth, prevalence: float, curve: tuple[Point, ...]) -> Measured:
    found = logits >= 0
    hits, alarms = int(found[truth].sum()), int(found[~truth].sum())
    positives, negatives = int(truth.sum()), int((~truth).sum())
    recall_low, recall_high = wilson(hits, positives)
    false_low, false_high = wilson(alarms, negatives)
    return Measured(
        method=method,
        examples=positives,
        background=negatives,
        auroc=auroc(logits[truth], logits[~truth]),
        recall=hits / positives,
        false_positive_rate=alarms / negatives,
        prevalence=prevalence,
        precision=_precision(hits / positives, alarms / negatives, prevalence),
        precision_low=_precision(recall_low, false_high, prevalence),
        precision_high=_precision(recall_high, false_low, prevalence),
        curve=curve,
    )


def _precision(recall: float, false_positive_rate: float, prevalence: float) -> float:
    alarms = recall * prevalence + false_positive_rate * (1 - prevalence)
    return recall * prevalence / alarms if alarms else 0.0


def _curve(fit: Fit, vectors: Vectors, truth: Truth, seed: int) -> tuple[Point, ...]:
    """Return how the AUROC grows with the number of examples, each on the examples that were not drawn."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    points = []
    for shots in SHOTS:
        if len(positives) - shots < 2:
            break
        values = [
            _draw(fit, vectors, positives, negatives, shots, np.random.default_rng((seed, shots, draw)))
            for draw in range(DRAWS)
        ]
        points.append(Point(shots, float(np.mean(values)), float(np.std(values))))
    return tuple(points)


def _draw(
    fit: Fit,
    vectors: Vectors,
    positives: NDArray[np.int64],
    negatives: NDArray[np.int64],
    shots: int,
    random: np.random.Generator,
) -> float:
    chosen = random.permutation(positives)
    other = random.permutation(negatives)
    half = len(other) // 2
    rows = np.concatenate([chosen[:shots], other[:half]])
    probe = fit(vectors[rows], np.arange(len(rows)) < shots)
    return auroc(probe.logits(vectors[chosen[shots:]]), probe.logits(vectors[other[half:]]))


def example_hashes(pixels: Sequence[NDArray[np.uint8]]) -> tuple[str, ...]:
    """Return the SHA-256 of each picture's pixels, 16 hex digits, as a label bank keeps them."""
    import hashlib

    return tuple(hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest()[:16] for one in pixels)
