"""Sampling of subjects in turns, A B B A, so that a busy moment affects all of them alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Call = Callable[[], int]  # does the work once and returns the nanoseconds it took
    Report = Callable[[str, float], None]


@dataclass(frozen=True)
class SamplingPlan:
    """How long to sample: at least ``rounds``, more while ``seconds`` last, never more than ``most``.

    ``warm_ups`` calls of each subject go untimed before the first round. ``settle_s`` is the pause before each call, in
    which the threads of the previous one stop spinning.
    """

    rounds: int = 20
    most: int = 200
    seconds: float = 30.0
    warm_ups: int = 2
    settle_s: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= self.most:
            raise UsageError(f"--rounds {self.rounds}: expected 1 to {self.most}")


def take_turns(
    calls: Mapping[str, Call], plan: SamplingPlan, report: Report = lambda stage, share: None
) -> dict[str, list[int]]:
    """Sample every subject once per round; every second round runs backwards. Returns nanoseconds by subject."""
    samples: dict[str, list[int]] = {name: [] for name in calls}
    for name, call in calls.items():
        report(f"warming up {name}", 0.0)
        for _ in range(plan.warm_ups):
            call()
    began = time.perf_counter()
    done = 0
    while calls and done < plan.most and (done < plan.rounds or time.perf_counter() - began < plan.seconds):
        order = list(calls.items())
        for name, call in order if done % 2 == 0 else reversed(order):
            time.sleep(plan.settle_s)
            samples[name].append(call())
        done += 1
        passed_s = time.perf_counter() - began
        report("sampling in turns", max(done / plan.most, min(done / plan.rounds, passed_s / max(plan.seconds, 1e-3))))
    return samples


def timed(work: Callable[[], object], repeat: int = 1, clock: Callable[[], int] = time.perf_counter_ns) -> Call:
    """Make a call of work in this process; ``repeat`` runs are one sample (their mean), for work of microseconds."""

    def call() -> int:
        began = clock()
        for _ in range(repeat):
            work()
        return (clock() - began) // repeat

    return call
