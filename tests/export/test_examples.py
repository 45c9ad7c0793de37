"""Labels from examples: probes, their choice, their calibration, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.export.examples import label_from_examples
from overflight.runtime.errors import UsageError


def cloud(count: int, middle: NDArray[np.float32], seed: int, spread: float = 0.5) -> NDArray[np.float32]:
    """Return unit vectors around a middle."""
    noise = np.random.default_rng(seed).normal(0, spread / math.sqrt(len(middle)), (count, len(middle)))
    vectors = middle + noise
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


WANTED = np.eye(32, dtype=np.float32)[0]
OTHER = np.eye(32, dtype=np.float32)[1]


def test_a_label_scores_its_examples_above_half_and_the_background_below() -> None:
    """exp(scale)·cosine + bias is the probe's logit, so the label needs nothing but a bank of format 2."""
    label = label_from_examples(cloud(16, WANTED, 1), cloud(64, OTHER, 2))
    assert np.linalg.norm(label.vector) == pytest.approx(1, abs=1e-5)
    for vectors, above in ((cloud(50, WANTED, 3), True), (cloud(50, OTHER, 4), False)):
        logits = math.exp(label.logit_scale) * (vectors @ label.vector) + label.logit_bias
        assert ((logits > 0) == above).mean() > 0.95
    assert label.measured.auroc > 0.99


def test_the_curve_grows_and_the_interval_is_wide_for_few() -> None:
    """More examples, a higher AUROC; sixteen examples cannot promise a precision at a prevalence of 1 %."""
    near = WANTED * 0.4 + OTHER
    label = label_from_examples(cloud(40, near, 1, 1.0), cloud(120, OTHER, 2, 1.0))
    curve = label.measured.curve
    assert [point.shots for point in curve] == [1, 2, 4, 8, 16, 32]
    assert curve[-1].auroc > curve[0].auroc
    assert label.measured.precision_low < label.measured.precision < label.measured.precision_high


def test_too_few_and_contradictory_examples_are_refused() -> None:
    """Three examples; a picture in both folders; two folders of the same kind."""
    with pytest.raises(UsageError, match="at least 4"):
        label_from_examples(cloud(3, WANTED, 1), cloud(20, OTHER, 2))
    background = cloud(20, OTHER, 2)
    with pytest.raises(UsageError, match="1 of 9 examples are also in the background"):
        label_from_examples(np.concatenate([cloud(8, WANTED, 1), background[:1]]), background)
    with pytest.raises(UsageError, match="cannot be separated from the background"):
        label_from_examples(cloud(20, WANTED, 3), cloud(20, WANTED, 4))
