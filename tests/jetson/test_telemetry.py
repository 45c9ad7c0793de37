"""Readings, and what they add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from overflight.jetson import telemetry
from overflight.jetson.board import identify
from overflight.jetson.telemetry import DeviceReading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Grow = Callable[[str], Path]


def test_a_reading_of_an_orin_nano(tree: Grow) -> None:
    """Mode, clocks, temperatures without the engines that sleep, and VDD_IN as the draw of the module."""
    reading = telemetry.read(tree("orin-nano-jetpack-6.2"))
    assert reading is not None
    assert reading.power_mode == "25W"
    assert (reading.gpu_mhz, reading.gpu_limit_mhz, reading.gpu_load) == (306, 918, 0.42)
    assert len(reading.cpu_mhz) == 6
    assert "cv0" not in reading.temperatures_c
    assert reading.hottest_c == 50.687
    assert reading.power_mw == reading.rails_mw["VDD_IN"] == 5016 * 1856 // 1000
    assert reading.over_current == {"oc1": 0, "oc2": 0, "oc3": 0}
    assert reading.throttling == ()


def test_an_agx_orin_adds_up_its_inputs(tree: Grow) -> None:
    """AGX Orin has no VDD_IN: its three input rails are added, NC and what hangs behind an input are not."""
    reading = telemetry.read(tree("agx-orin-jetpack-7.2"))
    assert reading is not None
    assert "NC" not in reading.rails_mw
    assert reading.power_mw == 2340 + 390 + 5031 * 800 // 1000


def test_thor_has_a_meter_at_its_input(tree: Grow) -> None:
    """An INA238 reports microwatts of the whole input."""
    root = tree("agx-orin-jetpack-7.2")
    chip = root / "sys/class/hwmon/hwmon7"
    chip.mkdir()
    (chip / "name").write_text("ina238\n")
    (chip / "power1_input").write_text("41250000\n")
    reading = telemetry.read(root)
    assert reading is not None
    assert reading.power_mw == 41250


def test_none_off_the_device(tmp_path: Path) -> None:
    """Off the device there is nothing to read."""
    assert telemetry.read(tmp_path) is None


def test_a_container_is_known_by_the_kernels_name_of_its_soc(tmp_path: Path) -> None:
    """Docker hides the device tree, and no release file is mounted; /sys is there. Other makers' SoCs are not ours."""
    family = tmp_path / "sys/devices/soc0/family"
    family.parent.mkdir(parents=True)
    family.write_text("Tegra\n")
    board = identify(tmp_path)
    assert telemetry.on_device(tmp_path)
    assert board is not None
    assert (board.model, board.l4t, board.module) == ("unknown Jetson", None, None)
    family.write_text("Snapdragon\n")
    assert identify(tmp_path) is None


def test_a_bare_board_reads_empty(tmp_path: Path) -> None:
    """A board whose sensors are all gone still answers."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    reading = telemetry.read(tmp_path)
    assert reading is not None
    assert (reading.power_mw, reading.hottest_c, reading.rails_mw) == (None, None, {})


def test_counters_that_grow_are_throttling() -> None:
    """Over-current events between two readings are a verdict, those from before are not."""
    calm = DeviceReading(0, over_current={"oc3": 7})
    assert not telemetry.judge([calm, replace(calm, monotonic_ns=1)]).throttled
    verdict = telemetry.judge([calm, replace(calm, over_current={"oc3": 9})])
    assert verdict.reasons == ("2 instantaneous over-current events",)


def test_a_busy_gpu_below_its_lock_was_held_back() -> None:
    """With locked clocks a busy GPU runs at its limit, or something holds it back."""
    fast = DeviceReading(0, gpu_mhz=1020, gpu_limit_mhz=1020, gpu_load=0.9, clocks_locked=True)
    assert not telemetry.judge([fast]).throttled
    assert telemetry.judge([fast, replace(fast, gpu_mhz=612)]).throttled
    assert not telemetry.judge([fast, replace(fast, gpu_mhz=612, gpu_load=0.0)]).throttled
    assert not telemetry.judge([fast, replace(fast, gpu_mhz=612, clocks_locked=False)]).throttled


def test_cooling_that_steps_in_is_throttling(tree: Grow) -> None:
    """A fan that blows is no throttling, a capped CPU is."""
    root = tree("orin-nano-jetpack-6.2")
    (root / "sys/class/thermal/cooling_device1/cur_state").write_text("3\n")
    reading = telemetry.read(root)
    assert reading is not None
    assert telemetry.judge([reading]).reasons == ("cpufreq-cpu0",)


def test_joules_are_the_area_under_the_power() -> None:
    """10 W rising to 20 W over two seconds are 30 J; unknown power is no energy."""
    readings = [DeviceReading(0, power_mw=10_000), DeviceReading(2_000_000_000, power_mw=20_000)]
    assert telemetry.joules(readings) == pytest.approx(30.0)
    assert telemetry.joules(readings[:1]) is None
    assert telemetry.joules([*readings, DeviceReading(3_000_000_000)]) is None
