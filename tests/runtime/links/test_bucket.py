"""The token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.links.bucket import BURST_S, Bucket


@given(st.floats(10, 1e6), st.lists(st.integers(1, 100_000), min_size=1, max_size=50))
def test_the_rate_is_kept_over_any_messages(rate: float, sizes: list[int]) -> None:
    """All messages together take at least their bytes over the rate, less the savings and the last one's credit."""
    bucket, now_s = Bucket(rate, 0.0), 0.0
    for size in sizes:
        now_s += bucket.wait_s(size, now_s)
        assert bucket.wait_s(size, now_s) <= 1e-6
        bucket.spend(size, now_s)
    assert now_s >= (sum(sizes) - sizes[-1]) / rate - BURST_S - 1e-6


def test_an_idle_link_saves_two_seconds_and_no_more() -> None:
    """After a long silence two seconds' worth may go at once."""
    bucket = Bucket(1000.0, 0.0)
    assert bucket.wait_s(2000, 3600.0) == 0.0
    bucket.spend(2000, 3600.0)
    assert bucket.wait_s(200, 3600.0) == pytest.approx(0.2)


def test_a_link_without_a_rate_never_waits() -> None:
    """No rate, no limit."""
    bucket = Bucket(None, 0.0)
    bucket.spend(10**9, 0.0)
    assert bucket.wait_s(10**9, 0.0) == 0.0
    assert not bucket.too_large(10**9)
