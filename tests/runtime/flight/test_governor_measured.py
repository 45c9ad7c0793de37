"""The governor on a published measurement: an Orin NX 16GB in open air with its stock heat sink and fan.

From ARK Electronics' published soak of 45 minutes (ark_jetson_kernel, docs/power.md): draw of VDD_IN and the hottest
junction in each power mode. Their record holds no course in time; the time constant here is ours, and tried twice.

Covers: runtime/flight/governor.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from overflight.runtime.flight.governor import Governor, GovernorLimits, Sensed

MEASURED = ((4.6, 58.0), (16.9, 71.0), (27.6, 86.0), (29.4, 89.0), (29.0, 92.0))  # W, °C
IDLE_W, BUSY_W = 4.6, 29.4


def line() -> tuple[float, float]:
    """Return °C per W, and the °C without any draw."""
    watts, degrees = np.array(MEASURED).T
    slope, offset = np.polyfit(watts, degrees, 1)
    return float(slope), float(offset)


def course(limits: GovernorLimits, tau_s: float, warmer_c: float = 0.0) -> tuple[list[tuple[float, float]], int]:
    """Two hours of this board under a governor: (W, °C) of every second, and how often the step changed."""
    slope, offset = line()
    governor = Governor(limits, tiled=False)
    now_c, states, changes = 58.0, [], 0
    for second in range(7200):
        power_w = IDLE_W + (BUSY_W - IDLE_W) / governor.step.every
        now_c += (offset + slope * power_w + warmer_c - now_c) / tau_s
        states.append((power_w, now_c))
        changes += governor.update(float(second), Sensed(power_w, round(now_c))) is not None
    return states, changes


def test_the_line_fits_what_was_measured() -> None:
    """About 1.3 °C a watt, every state within 3 °C."""
    slope, offset = line()
    assert 1.2 < slope < 1.4
    assert all(abs(offset + slope * power_w - hottest_c) < 3 for power_w, hottest_c in MEASURED)


@pytest.mark.parametrize("tau_s", [60.0, 300.0])
def test_an_open_air_board_is_not_slowed_below_its_own_plateau(tau_s: float) -> None:
    """Measured: 92 °C for 45 minutes and nothing throttled. A limit of 95 must change nothing."""
    assert course(GovernorLimits(max_temperature_c=95), tau_s)[1] == 0


@pytest.mark.parametrize("tau_s", [60.0, 300.0])
@pytest.mark.parametrize("warmer_c", [0.0, 20.0])
def test_a_limit_below_the_plateau_is_kept(tau_s: float, warmer_c: float) -> None:
    """80 °C as measured and in air 20 °C warmer: kept but for the first rise, with few changes at the end."""
    states, changes = course(GovernorLimits(max_temperature_c=80), tau_s, warmer_c)
    assert max(hottest_c for _, hottest_c in states[1800:]) < 83
    assert changes < 60
    assert warmer_c or max(power_w for power_w, _ in states[1800:]) > IDLE_W + 5, "it still works"


def test_the_module_stays_in_the_25_w_that_a_5_v_board_may_draw() -> None:
    """Their board drew 29 W, 6 A at 5 V, above the data sheet's 5 A: --power-budget 25."""
    watts = [power_w for power_w, _ in course(GovernorLimits(power_budget_w=25), 120.0)[0]]
    over = [sum(watts[at : at + 60]) / 60 > 25 for at in range(120, 7140, 60)]
    assert sum(over) <= 8
    assert not any(over[-10:])
