"""Spread: percentiles, ratios by pairs, and the judgement of a change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.bench.spread import Spread, judge, ratio
from overflight.runtime.errors import UsageError


def noisy(seed: int, count: int, slow: float = 1.0) -> tuple[list[int], list[int]]:
    """Two subjects of 10 ms in turns on a machine whose speed wanders by half, each call disturbed by 5 %."""
    dice = np.random.default_rng(seed)
    weather = 1.5 + np.sin(np.arange(count) / 17) / 2
    ours, theirs = (1e7 * weather * dice.lognormal(0, 0.05, count) for _ in range(2))
    return [int(ns * slow) for ns in ours], [int(ns) for ns in theirs]


def test_percentiles_are_those_of_the_samples() -> None:
    """A thousand known numbers."""
    spread = Spread.of(list(range(1001)))
    found = (spread.best, spread.p50, spread.p90, spread.p99, spread.p999, spread.worst)
    assert found == pytest.approx((0, 500, 900, 990, 999, 1000))


def test_fifteen_percent_is_caught_and_three_is_not() -> None:
    """For every seed, through weather that moves single times by a factor of two."""
    for seed in range(40):
        assert judge(ratio(*noisy(seed, 200, 1.15)), 0.05) == "slower"
        assert judge(ratio(*noisy(seed, 200, 1.03)), 0.05) in ("same", "unclear")
        assert judge(ratio(*noisy(seed, 2000)), 0.05) == "same"
        assert judge(ratio(*noisy(seed, 200, 1 / 1.15)), 0.05) == "faster"


def test_too_few_pairs_leave_it_unclear() -> None:
    """What the noise hides is neither a change nor none; more pairs tell."""
    assert {judge(ratio(*noisy(seed, 20, 1.15)), 0.05) for seed in range(40)} >= {"unclear"}
    assert {judge(ratio(*noisy(seed, 400, 1.15)), 0.05) for seed in range(40)} == {"slower"}


def test_the_range_holds_the_truth() -> None:
    """99 % of the ranges hold the true ratio; 200 of them leave out five at most (chance below 1 in 50)."""
    outside = 0
    for seed in range(200):
        found = ratio(*noisy(seed, 60, 0.5))
        outside += not found.low <= 0.5 <= found.high
    assert outside <= 5


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1, max_size=50))
def test_a_ratio_turned_round_is_its_inverse(pairs: list[tuple[int, int]]) -> None:
    """A over B and B over A tell the same story (exactly so for an odd number of pairs)."""
    pairs = pairs[: len(pairs) - (len(pairs) + 1) % 2] or pairs
    ours, theirs = zip(*pairs, strict=True)
    one, other = ratio(ours, theirs), ratio(theirs, ours)
    assert one.median == pytest.approx(1 / other.median)
    assert one.low <= one.median <= one.high


def test_samples_of_different_runs_make_no_pairs() -> None:
    """A ratio across runs would compare two moments of the machine."""
    with pytest.raises(UsageError, match="in turns"):
        ratio([1, 2], [1])
