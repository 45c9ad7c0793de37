"""Measures and retrieval against values worked out by hand and independent libraries.

Covers: station/evaluate/measures.py, station/evaluate/retrieval.py, station/evaluate/open_set.py
"""

from __future__ import annotations

import numpy as np
import pytest

from overflight.station.evaluate.measures import (
    calibration_error,
    cumulative_iou,
    mean_iou,
    of_draws,
    recall_at,
    resampled,
    share,
)
from overflight.station.evaluate.open_set import calibration, open_set
from overflight.station.evaluate.retrieval import as_queries, recalls


def test_retrieval_counts_a_matrix_with_a_known_answer() -> None:
    """Two pictures, three captions each, RemoteCLIP's semantics, by hand.

    Picture 0 ranks texts 3, 0, 1, …: a miss at 1, a hit at 5. Picture 1 ranks 4 first: a hit. Of the six texts, 0, 1, 4
    and 5 find their picture first, all of them within two.
    """
    scores = np.array([[0.8, 0.7, 0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.6, 0.4, 0.95, 0.5]], np.float32)
    found = recalls(scores, np.array([0, 0, 0, 1, 1, 1]))
    assert found["I2T R@1"].value == 0.5
    assert found["I2T R@5"].value == 1.0
    assert found["T2I R@1"].value == pytest.approx(4 / 6)
    assert found["T2I R@5"].value == found["T2I R@10"].value == 1.0
    assert found["mean recall"].value == pytest.approx((0.5 + 1 + 1 + 4 / 6 + 1 + 1) / 6)
    assert found["mean recall"].low < found["mean recall"].value


def test_the_mean_of_published_rows_is_the_published_mean_recall() -> None:
    """The arithmetic of RemoteCLIP's table: the mean of the six is its last column."""
    rows = {
        "RSITMD ViT-L-14": ((28.76, 52.43, 63.94, 23.76, 59.51, 74.73), 50.52),
        "RSICD ViT-L-14": ((18.39, 37.42, 51.05, 14.73, 39.93, 56.58), 36.35),
        "UCM ViT-B-32": ((20.48, 59.85, 83.33, 18.67, 61.52, 94.29), 56.36),
    }
    for name, (six, mean) in rows.items():
        assert float(np.mean(six)) == pytest.approx(mean, abs=0.006), name


def test_a_matrix_of_published_size_gives_published_recalls() -> None:
    """RSITMD, 452 pictures and 2,260 captions: ranks chosen for 130, 237 and 289 hits at 1, 5 and 10.

    Of 452 they are RemoteCLIP ViT-L-14's published 28.76, 52.43 and 63.94.
    """
    ranks = np.repeat([0, 3, 8, 40], [130, 237 - 130, 289 - 237, 452 - 289])
    owner = np.repeat(np.arange(452), 5)
    scores = np.zeros((452, 2260), np.float32)
    for picture, rank in enumerate(ranks):
        others = np.flatnonzero(owner != picture)[:rank]
        scores[picture, others] = 1.0
        scores[picture, 5 * picture] = 0.5
    found = recalls(scores, owner)
    assert [round(100 * found[f"I2T R@{k}"].value, 2) for k in (1, 5, 10)] == [28.76, 52.43, 63.94]


def test_captions_are_neither_unique_nor_stripped() -> None:
    """Both change the result by points (RemoteCLIP, issue 7)."""
    texts, owner = as_queries([["Many PLANES .", "many planes ."], ["a river."]])
    assert texts == ["Many planes .", "Many planes .", "A river."]
    assert owner.tolist() == [0, 0, 1]


def test_equal_scores_keep_the_order_of_the_columns() -> None:
    """A model that answers the same for everything must not look good by luck of sorting."""
    scores = np.zeros((2, 10), np.float32)
    positive = np.zeros((2, 10), np.bool_)
    positive[0, 0] = positive[1, 9] = True
    assert recall_at(scores, positive, 1).tolist() == [True, False]


def test_a_share_has_wilsons_interval() -> None:
    """8 of 10: 0.490 to 0.943 (Wilson, 1927)."""
    found = share(np.array([True] * 8 + [False] * 2))
    assert (found.value, round(found.low, 3), round(found.high, 3)) == (0.8, 0.49, 0.943)
    with pytest.raises(ValueError, match="no samples"):
        share(np.array([], np.bool_))


def test_draws_have_students_interval() -> None:
    """Five draws: t of four degrees of freedom."""
    found = of_draws([0.5, 0.6, 0.7, 0.8, 0.9])
    assert found.high - found.value == pytest.approx(2.776 * np.std([0.5, 0.6, 0.7, 0.8, 0.9], ddof=1) / 5**0.5)
    assert of_draws([0.5]).low == 0.5


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.9 said and half right, 0.1 said and never right."""
    said, right = np.array([0.9, 0.9, 0.1, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])
    assert calibration_error(said, right) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


def test_miou_is_a_mean_and_ciou_is_cumulative() -> None:
    """A small object that is missed costs the mean more than the sum."""
    overlaps = np.array([[90.0, 100.0], [0.0, 10.0]])
    assert mean_iou(overlaps) == pytest.approx(0.45)
    assert cumulative_iou(overlaps) == pytest.approx(90 / 110)
    assert resampled(overlaps, mean_iou) == resampled(overlaps, mean_iou)


def test_open_set_and_calibration_of_a_perfect_model() -> None:
    """Classes at right angles: an unknown class has cosine 0 to every text."""
    classes = np.eye(10, dtype=np.float32)
    truth = np.repeat(np.arange(10), 20)
    found = open_set(classes[truth], classes, truth)
    assert found["AUROC of the best cosine"].value == 1.0
    assert found["known kept at 5 % false"].value == 1.0
    assert calibration(classes[truth], classes, truth, 50.0, -25.0)["ECE of softmax"].value < 1e-9
