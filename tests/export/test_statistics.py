"""Areas under the ROC curve and intervals of shares, against published values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from overflight.export.statistics import auroc, wilson


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    """Ties count as half."""
    assert auroc(np.array([2, 1], np.float32), np.array([0, 1], np.float32)) == pytest.approx(3.5 / 4)


def test_the_interval_of_a_share() -> None:
    """Newcombe 1998, table I: 81 of 263 has the Wilson interval 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "total"), [(0, 5), (5, 5), (3, 10), (1, 1000)])
def test_wilson_is_the_known_interval(count: int, total: int) -> None:
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:  # a bound is where the normal test of the share just fails
        assert abs(count / total - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / total) ** 0.5, rel=1e-6)


def test_auroc_equals_scikit_learn() -> None:
    """With ties."""
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(0)
    known, unknown = chance.integers(3, 9, 80), chance.integers(0, 6, 60)
    wanted = metrics.roc_auc_score([1] * 80 + [0] * 60, np.concatenate([known, unknown]))
    assert auroc(known.astype(np.float32), unknown.astype(np.float32)) == pytest.approx(wanted)
