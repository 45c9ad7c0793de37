"""The card's figures are computed as their names promise."""

from __future__ import annotations

import numpy as np
import pytest

from overflight.models import measures


def test_recall_counts_rows_with_any_positive_among_the_best() -> None:
    """The second row finds its positive only at depth two."""
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    positive = np.array([[True, False, False], [False, True, False]])
    assert measures.recall(scores, positive, 1) == 0.5
    assert measures.recall(scores, positive, 2) == 1.0


def test_the_fitted_sigmoid_finds_the_scale_and_bias_that_made_the_data() -> None:
    """Labels drawn from a known logistic give it back."""
    draw = np.random.default_rng(0)
    cosines = draw.uniform(-1, 1, 200_000)
    positive = draw.random(200_000) < measures.sigmoid(20 * cosines - 6)
    scale, bias = measures.fit_sigmoid(cosines, positive)
    assert scale == pytest.approx(20, rel=0.03)
    assert bias == pytest.approx(-6, rel=0.03)


def test_nearest_neighbours_vote() -> None:
    """Queries take the label of the cluster they lie in."""
    known = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    label = np.array([0, 0, 0, 1, 1, 1])
    query = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert measures.vote(known, label, query, 2, k=3).argmax(1).tolist() == [0, 1]


def test_confusion_counts_truth_by_row() -> None:
    """Rows are truths, columns are guesses."""
    table = measures.confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    assert table.tolist() == [[1, 1], [0, 1]]
