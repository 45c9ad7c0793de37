"""The governor on recorded file systems of boards, and in a whole flight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight import governor_watch
from overflight.runtime.flight.gauges import Gauges
from overflight.runtime.flight.governor import GovernorChange, GovernorLimits, Sensed, Step
from overflight.runtime.flight.governor_watch import GovernorActions, GovernorWatch
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.flight.warnings import Warnings
from overflight.runtime.worker import Worker

NANO = "orin-nano-jetpack-6.2"


class Bench:
    """A watch whose thread does not run: the test takes its steps."""

    def __init__(self, root: Path, limits: GovernorLimits, *, live: bool = True, tiled: bool = False) -> None:
        self.steps: list[Step] = []
        self.changes: list[GovernorChange] = []
        self.warnings = Warnings()
        self.left_wh: float | None = None
        actions = GovernorActions(self.steps.append, lambda utc_ns, change: self.changes.append(change))
        self.watch = GovernorWatch(
            limits, actions, self.warnings, tiled=tiled, live=live, battery_wh=lambda: self.left_wh, root=root
        )

    def second(self, at_s: float) -> None:
        self.watch.update(at_s, 0, self.watch._sense())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> type[Bench]:
    monkeypatch.setattr(Worker, "start", lambda self: None)
    return Bench


def set_rail(root: Path, watts: float) -> None:
    """Let VDD_IN draw so much: 5 V times a current."""
    chip = root / "sys/class/hwmon/hwmon1"
    (chip / "in1_input").write_text("5000\n")
    (chip / "curr1_input").write_text(f"{watts / 5 * 1000:.0f}\n")


def set_temperature(root: Path, celsius: float) -> None:
    (root / "sys/class/thermal/thermal_zone0/temp").write_text(f"{celsius * 1000:.0f}\n")


def test_a_board_that_warms_up_is_slowed_down(tree: Callable[[str], Path], bench: type[Bench]) -> None:
    """Through the kernel's own files: VDD_IN, the zones, the cooling devices."""
    root = tree(NANO)
    run = bench(root, GovernorLimits(power_budget_w=12.0, max_temperature_c=75))
    temperature_c, power_w = 50.0, 0.0
    for at_s in range(0, 200, 4):
        power_w = 5 + 14 / run.watch.governor.step.every
        temperature_c += (45.0 + 2.5 * power_w - temperature_c) / 10
        set_rail(root, power_w)
        set_temperature(root, temperature_c)
        run.second(at_s)
    assert run.changes[0].before == 0
    assert max(change.step for change in run.changes) >= 2
    assert "the budget is 12 W" in run.changes[0].reason
    assert run.changes[0].power_mode == "25W"
    assert [step.name for step in run.steps] == [change.name for change in run.changes]
    assert run.watch.changes == len(run.changes)
    assert not run.warnings.current


def test_over_current_events_are_a_demand(tree: Callable[[str], Path], bench: type[Bench]) -> None:
    """Only those that happen now: a counter that was high before the flight is history."""
    root = tree(NANO)
    counter = root / "sys/class/hwmon/hwmon3/oc1_event_cnt"
    counter.write_text("7\n")
    run = bench(root, GovernorLimits(max_temperature_c=95))
    run.second(0)
    run.second(1)
    assert not run.changes
    counter.write_text("8\n")
    run.second(2)
    assert run.changes[0].reason == "the device slows itself down: under-voltage"


def test_a_machine_without_sensors_says_so(tmp_path: Path, bench: type[Bench]) -> None:
    """Each limit that nothing measures; the battery's after a minute, for an autopilot may still come."""
    run = bench(tmp_path, GovernorLimits(10.0, 80.0, 20.0))
    run.second(run.watch._began_s)
    assert run.warnings.current["governor"] == (
        "--power-budget: this machine does not measure its draw; --max-temperature: this machine reports no "
        "temperature, so that limit has no effect"
    )
    run.second(run.watch._began_s + 61)
    assert "no autopilot states its battery's energy" in run.warnings.current["governor"]
    run.left_wh = 50.0
    run.second(run.watch._began_s + 62)
    assert "battery" not in run.warnings.current["governor"]
    assert not run.changes


def test_a_laptop_has_thermal_zones(tmp_path: Path, bench: type[Bench]) -> None:
    """A field station is no board, but its kernel reports temperatures."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("x86_pkg_temp\n")
    (zone / "temp").write_text("91000\n")
    run = bench(tmp_path, GovernorLimits(max_temperature_c=90))
    run.second(0)
    assert run.changes[0].reason == "91 °C, the limit is 90 °C"
    assert not run.warnings.current


def test_a_recording_is_not_governed(tmp_path: Path, bench: type[Bench]) -> None:
    """It is read to its end, whatever the limits; the log says so."""
    run = bench(tmp_path, GovernorLimits(max_temperature_c=80), live=False)
    assert not run.watch.active
    assert "a recording is read to its end" in run.warnings.current["governor"]


def test_a_flight_keeps_every_change(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the journal, in health and in the metrics; frames that were left out are counted as governed."""
    seen: dict[str, Any] = {}
    hot = iter([60.0, 85.0, *[78.0] * 1000])
    monkeypatch.setattr(governor_watch, "EVERY_S", 0.02)
    monkeypatch.setattr(GovernorWatch, "_sense", lambda self: Sensed(hottest_c=next(hot)))
    taken: list[Gauges] = []
    real = Gauges.__init__

    def keep(self: Gauges) -> None:
        real(self)
        taken.append(self)

    monkeypatch.setattr(Gauges, "__init__", keep)

    def on_observation(stream: Any, observation: Any) -> None:
        seen["skipped"] = seen.get("skipped", 0) + observation.skipped.get("governed", 0)
        if seen["skipped"] > 5:
            seen["status"], seen["metrics"] = taken[0].status(), taken[0].metrics()
            seen["health"] = taken[0].explain_fresh()
            stream.stop()

    with Overflight.load(colour_bundle, colour_bank) as overflight:
        config = FlightConfig(limits=GovernorLimits(max_temperature_c=80))
        fly(overflight, "test://32x32@60", tmp_path / "flight", config, on_observation=on_observation)
    (change,) = JournalReader(tmp_path / "flight" / "journal.sqlite").governor()
    assert (change.before, change.step, change.name) == (0, 3, "a tenth of the rate")
    assert change.reason == "85 °C, the limit is 80 °C"
    assert seen["status"].governor == "a tenth of the rate"
    assert "overflight_governor_step 3" in seen["metrics"]
    assert "overflight_governor_changes_total 1" in seen["metrics"]
    assert "governor: a tenth of the rate" in seen["health"][1]
