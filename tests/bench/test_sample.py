"""Sampling in turns."""

from __future__ import annotations

from overflight.bench.sample import SamplingPlan, take_turns, timed


def test_subjects_take_turns_there_and_back() -> None:
    """A B B A: neither always comes first."""
    order: list[str] = []

    def call(name: str) -> int:
        order.append(name)
        return len(order)

    samples = take_turns(
        {"a": lambda: call("a"), "b": lambda: call("b")}, SamplingPlan(4, 4, 0.0, warm_ups=1, settle_s=0)
    )
    assert "".join(order) == "ab" + "abba" * 2
    assert samples == {"a": [3, 6, 7, 10], "b": [4, 5, 8, 9]}


def test_a_plan_lasts_as_long_as_it_says() -> None:
    """More rounds while there is time, never more than the most."""
    assert len(take_turns({"a": lambda: 1}, SamplingPlan(2, 5, 10.0, settle_s=0))["a"]) == 5
    assert len(take_turns({"a": lambda: 1}, SamplingPlan(2, 5, 0.0, settle_s=0))["a"]) == 2


def test_a_timed_call_is_the_mean_of_its_repeats() -> None:
    """Work of microseconds is repeated, and divided."""
    done: list[int] = []
    ns = timed(lambda: done.append(1), repeat=1000)()
    assert len(done) == 1000
    assert ns < 100_000
