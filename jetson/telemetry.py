"""Device readings: power, clocks and temperatures, once a second in flight and around a benchmark."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.jetson import clocks, memory, power, rails, sysfs, thermal

if TYPE_CHECKING:
    from collections.abc import Sequence

# The kernel's names of Orin's counters, in NVIDIA's words.
OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
# Below this share of its cap a busy GPU was throttled.
_HELD_BACK = 0.9
_BUSY = 0.5


@dataclass(frozen=True)
class DeviceReading:
    """One reading. ``monotonic_ns`` is the clock of the frames; what a board does not report is None or empty.

    ``temperatures_c`` and ``rails_mw`` are by name as the board names them, ``power_mw`` is the draw of the module,
    ``over_current`` counts events since boot, ``throttling`` names what now slows a clock down, ``gpu_load`` runs
    from 0 to 1, ``memory_stalled`` is the share of ten seconds in which some task waited for memory.
    """

    monotonic_ns: int
    power_mode: str | None = None
    cpu_mhz: tuple[int, ...] = ()
    gpu_mhz: int | None = None
    gpu_limit_mhz: int | None = None
    gpu_load: float | None = None
    clocks_locked: bool | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    rails_mw: dict[str, int] = field(default_factory=dict)
    power_mw: int | None = None
    over_current: dict[str, int] = field(default_factory=dict)
    throttling: tuple[str, ...] = ()
    memory_available: int | None = None
    memory_stalled: float | None = None

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature of all zones."""
        return max(self.temperatures_c.values(), default=None)


@dataclass(frozen=True)
class Throttling:
    """Whether the device was throttled during a series of readings, and why."""

    throttled: bool
    reasons: tuple[str, ...]


def read(root: Path = Path("/")) -> DeviceReading | None:
    """Take a reading: a few dozen small files, about a millisecond. None on other computers."""
    if not on_device(root):
        return None
    measured = rails.read(root)
    by_rail = {rail.name: rail.rail_mw for rail in measured}
    speeds, mode, state = clocks.read(root), power.current(root), memory.read(root)
    return DeviceReading(
        monotonic_ns=time.monotonic_ns(),
        power_mode=mode.name if mode else None,
        cpu_mhz=tuple(cpu.now_khz // 1000 for cpu in speeds.cpus if cpu.now_khz is not None),
        gpu_mhz=_mhz(speeds.gpu.now_khz) if speeds.gpu else None,
        gpu_limit_mhz=_mhz(speeds.gpu.max_khz) if speeds.gpu else None,
        gpu_load=speeds.gpu_load,
        clocks_locked=speeds.locked,
        temperatures_c=thermal.zones(root),
        rails_mw=by_rail,
        power_mw=rails.total_mw(by_rail),
        over_current=over_current(root),
        throttling=(*thermal.throttling(root), *(f"alarm of {rail.name}" for rail in measured if rail.alarm)),
        memory_available=state.available if state else None,
        memory_stalled=state.stalled if state else None,
    )


def on_device(root: Path = Path("/")) -> bool:
    """Whether this is a Jetson; a cheap test. In a container only the kernel says so, by the name of its SoC."""
    family = sysfs.text(root / "sys/devices/soc0/family") or ""
    return (
        (root / "etc/nv_tegra_release").is_file()
        or (root / "sys/devices/platform/gpu.0").is_dir()
        or family.lower().startswith("tegra")
    )


def over_current(root: Path = Path("/")) -> dict[str, int]:
    """Count the over-current and under-voltage events since boot, by the kernel's names (oc1, oc2, oc3)."""
    counters = sysfs.entries(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt")
    return {
        counter.name.removesuffix("_event_cnt"): events
        for counter in counters
        if (events := sysfs.number(counter)) is not None
    }


def judge(readings: Sequence[DeviceReading]) -> Throttling:
    """Tell whether the device was throttled between the first and the last reading.

    Counters that grew, cooling that stepped in, and a busy GPU below 90 % of its own limit while clocks were locked.
    """
    reasons: list[str] = []
    if len(readings) > 1:
        before, after = readings[0].over_current, readings[-1].over_current
        reasons += [
            f"{events - before.get(name, 0)} {OVER_CURRENT.get(name, name)} events"
            for name, events in after.items()
            if events > before.get(name, 0)
        ]
    reasons += sorted({name for reading in readings for name in reading.throttling})
    slow = [reading for reading in readings if _held_back(reading)]
    reasons += [f"GPU below its locked clock in {len(slow)} of {len(readings)} readings"] if slow else []
    return Throttling(bool(reasons), tuple(reasons))


def joules(readings: Sequence[DeviceReading]) -> float | None:
    """Energy between the first and the last reading: the trapezoid sum of the module's draw over time.

    None where a reading has no power, or fewer than two were taken.
    """
    draws = [(reading.monotonic_ns, reading.power_mw) for reading in readings]
    if len(draws) < 2 or any(draw is None for _, draw in draws):
        return None
    steps = pairwise(draws)
    return sum((t1 - t0) * ((p0 or 0) + (p1 or 0)) / 2 * 1e-12 for (t0, p0), (t1, p1) in steps)


def _held_back(reading: DeviceReading) -> bool:
    if reading.gpu_mhz is None or not reading.gpu_limit_mhz or not reading.clocks_locked:
        return False
    return (reading.gpu_load or 0) > _BUSY and reading.gpu_mhz < reading.gpu_limit_mhz * _HELD_BACK


def _mhz(khz: int | None) -> int | None:
    return None if khz is None else khz // 1000
