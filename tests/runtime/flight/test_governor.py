"""The governor against models of heat, power and batteries: limits are kept, and the load does not swing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.flight.governor import (
    HOLD_S,
    SETTLE_S,
    STEPS,
    TILED_STEPS,
    Governor,
    GovernorChange,
    GovernorLimits,
    Sensed,
    Step,
)


@dataclass
class Board:
    """A module as a heat sink: it draws ``idle_w`` and ``work_w`` times its load, and warms towards the air around it.

    ``ohm`` is the thermal resistance in °C per watt and ``tau_s`` the time constant: a module with a passive heat sink.
    """

    idle_w: float = 5.0
    work_w: float = 15.0
    ohm: float = 3.0
    tau_s: float = 120.0
    ambient_c: Callable[[float], float] = lambda at_s: 25.0
    temperature_c: float = 25.0
    trace: list[tuple[float, float, float]] = field(default_factory=list)

    def load(self, step: Step) -> float:
        tiles = {1: 1.0, 2: 0.3, 0: 0.1}[step.tiles]
        return tiles / step.every

    def run(self, governor: Governor, seconds: int) -> list[tuple[float, GovernorChange]]:
        changes = []
        for at_s in range(seconds):
            power_w = self.idle_w + self.work_w * self.load(governor.step)
            goal_c = self.ambient_c(at_s) + self.ohm * power_w
            self.temperature_c += (goal_c - self.temperature_c) / self.tau_s
            self.trace.append((at_s, power_w, self.temperature_c))
            if change := governor.update(float(at_s), Sensed(power_w, self.temperature_c)):
                changes.append((float(at_s), change))
        return changes


@pytest.mark.parametrize("tiled", [False, True])
def test_heat_is_kept_below_its_limit_and_the_load_does_not_swing(tiled: bool) -> None:
    """An hour at 45 °C: 105 °C without a governor; with one, hardly above 80, and fewer changes every quarter."""
    board = Board(ambient_c=lambda at_s: 45.0)
    free = Board(ambient_c=lambda at_s: 45.0)
    free.run(Governor(GovernorLimits(), tiled=tiled), 3600)
    assert free.temperature_c == pytest.approx(105, abs=0.1)
    changes = board.run(Governor(GovernorLimits(max_temperature_c=80), tiled=tiled), 3600)
    hottest = max(temperature for _, _, temperature in board.trace)
    assert hottest < 83
    assert all(abs(change.step - change.before) == 1 for _, change in changes)
    times = [at_s for at_s, _ in changes]
    assert min(second - first for first, second in pairwise(times)) >= SETTLE_S
    quarters = [sum(900 * quarter <= at_s < 900 * (quarter + 1) for at_s in times) for quarter in range(4)]
    assert quarters[3] <= 4
    assert quarters[3] <= quarters[0]


def test_everything_comes_back_when_the_air_is_cool_again() -> None:
    """A hot quarter of an hour on the ground, then a cold sky."""
    board = Board(ambient_c=lambda at_s: 50.0 if at_s < 900 else 5.0)
    governor = Governor(GovernorLimits(max_temperature_c=80), tiled=True)
    changes = board.run(governor, 3600)
    assert max(change.step for _, change in changes) >= 1
    assert governor.number == 0
    assert changes[-1][1].reason == "everything is below its limits"


@pytest.mark.parametrize(("budget_w", "tiled"), [(12.0, False), (10.0, True), (7.0, False)])
def test_the_draw_stays_within_its_budget(budget_w: float, tiled: bool) -> None:
    """Averaged over every minute after the first two."""
    board = Board()
    board.run(Governor(GovernorLimits(power_budget_w=budget_w), tiled=tiled), 1800)
    watts = [power for _, power, _ in board.trace]
    over = [sum(watts[at : at + 60]) / 60 > budget_w for at in range(120, 1740, 60)]
    assert sum(over) <= 3, "only the tries to go up again"
    assert not any(over[-5:])


def test_far_above_the_limit_the_last_step_is_taken_at_once() -> None:
    """A fan that stops leaves no time for steps."""
    governor = Governor(GovernorLimits(max_temperature_c=80), tiled=False)
    assert governor.update(0.0, Sensed(hottest_c=70.0)) is None
    change = governor.update(1.0, Sensed(hottest_c=86.0))
    assert change is not None
    assert (change.step, change.name) == (3, "a tenth of the rate")
    assert change.reason == "86 °C, the limit is 80 °C"


def test_a_battery_at_its_reserve_lowers_the_load_step_by_step() -> None:
    """And a new battery brings it back."""
    governor = Governor(GovernorLimits(reserve_wh=20.0), tiled=True)
    left = [30.0 - at_s / 60 for at_s in range(1200)]
    changes = [(at_s, change) for at_s, wh in enumerate(left) if (change := governor.update(at_s, Sensed(left_wh=wh)))]
    assert changes[0][0] == 600
    assert changes[0][1].reason == "20.0 Wh left, the reserve is 20 Wh"
    assert [change.step for _, change in changes] == [1, 2, 3, 4, 5]
    for at_s in range(1200, 1200 + 10 * int(HOLD_S)):
        governor.update(at_s, Sensed(left_wh=90.0))
    assert governor.number == 0


def test_a_device_that_slows_itself_down_is_a_demand() -> None:
    """Under-voltage counters that grow, and cooling devices that step in."""
    governor = Governor(GovernorLimits(max_temperature_c=95), tiled=False)
    change = governor.update(0.0, Sensed(hottest_c=60.0, throttling=("under-voltage",)))
    assert change is not None
    assert change.reason == "the device slows itself down: under-voltage"


def test_another_power_mode_forgets_how_long_the_old_one_had_to_wait() -> None:
    """The hold had doubled; after ``nvpmodel`` it starts again."""
    governor = Governor(GovernorLimits(power_budget_w=10.0), tiled=False)
    for at_s in range(600):
        load_w = 12.0 if governor.number == 0 else 8.0
        governor.update(at_s, Sensed(power_w=load_w, power_mode="MAXN"))
    assert governor._hold_s > HOLD_S
    governor.update(600.0, Sensed(power_w=8.0, power_mode="15W"))
    assert governor._hold_s == HOLD_S


def test_what_is_not_measured_demands_nothing() -> None:
    """None is no reading, neither high nor low."""
    governor = Governor(GovernorLimits(10.0, 80.0, 20.0), tiled=True)
    assert all(governor.update(at_s, Sensed()) is None for at_s in range(100))


def test_the_steps_only_ever_lower_the_load() -> None:
    """From full to a tenth, each less than the one before."""
    for steps in (STEPS, TILED_STEPS):
        loads = [Board().load(step) for step in steps]
        assert loads == sorted(loads, reverse=True)
        assert len({step.name for step in steps}) == len(steps)


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    """Kelvin and Fahrenheit are not Celsius."""
    with pytest.raises(UsageError, match="expected degrees Celsius"):
        GovernorLimits(max_temperature_c=353)
