"""Fitting default decisions: a probe separates two classes, a threshold is the best one. Covers: nothing.py."""

from __future__ import annotations

import numpy as np

from overflight.models.decisions import best_threshold, fit_probe, rates
from overflight.models.nothing import KINDS, make


def test_a_probe_separates_two_clouds() -> None:
    """Both classes count alike, however many there are of each."""
    random = np.random.default_rng(0)
    some = (random.normal(size=(20, 8)) + 2).astype(np.float32)
    many = (random.normal(size=(400, 8)) - 2).astype(np.float32)
    weights, bias = fit_probe(some, many, 1e-3)
    assert (some @ weights + bias > 0).all()
    assert (many @ weights + bias < 0).all()


def test_the_best_threshold_is_between_right_and_wrong() -> None:
    """Recall and false labels per picture are counted at the threshold that is returned."""
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    truth = np.array([[True, False], [False, True], [True, False]])
    threshold, recall, false_labels = best_threshold(scores, truth)
    assert (threshold, recall, false_labels) == (0.7, 1.0, 0.0)
    assert rates(scores, truth, 0.25) == (1.0, 1 / 3)


def test_made_up_pictures_repeat() -> None:
    """The same seed gives the same pictures of every kind."""
    for kind in KINDS:
        (first,), (second,) = make(kind, 1, 3), make(kind, 1, 3)
        assert first.dtype == np.uint8
        assert first.shape[2] == 3
        np.testing.assert_array_equal(first, second)
