"""Lines of a tegrastats log, read by their tokens: their order and presence differ between releases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overflight.jetson.rails import total_mw
from overflight.jetson.telemetry import DeviceReading

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z]\w{0,31})@(-?\d{1,4}(?:\.\d{1,6})?)C(?!\S)", re.ASCII)
_RAIL = re.compile(r"(?<!\S)(V[A-Z0-9_]{1,31}) (\d{1,7})(?:mW)?/(\d{1,7})(?:mW)?(?!\S)", re.ASCII)
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (\d{1,3})%(?:@\[?(\d{1,5}))?", re.ASCII)
_CPUS = re.compile(r"(?<!\S)CPU \[([^\]]{1,1024})\]", re.ASCII)
_CORE = re.compile(r"^\d{1,3}%@(\d{1,5})$", re.ASCII)
_RAM = re.compile(r"(?<!\S)RAM (\d{1,8})/(\d{1,8})MB", re.ASCII)
_COLD_C = -60.0


def parse(line: str, monotonic_ns: int) -> DeviceReading | None:
    """Turn one line into a reading taken at ``monotonic_ns``; None if the line has no known token."""
    gpu, ram, cpus = _GPU.search(line), _RAM.search(line), _CPUS.search(line)
    by_rail = {name: int(now) for name, now, _ in _RAIL.findall(line)}
    temperatures = {name.lower(): float(celsius) for name, celsius in _TEMPERATURE.findall(line)}
    temperatures = {name: celsius for name, celsius in temperatures.items() if celsius > _COLD_C}
    if not (gpu or ram or cpus or by_rail or temperatures):
        return None
    cores = (_CORE.match(core) for core in (cpus[1] if cpus else "").split(","))
    return DeviceReading(
        monotonic_ns=monotonic_ns,
        cpu_mhz=tuple(int(core[1]) for core in cores if core),
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        gpu_load=min(int(gpu[1]) / 100, 1.0) if gpu else None,
        temperatures_c=temperatures,
        rails_mw=by_rail,
        power_mw=total_mw(by_rail),
        memory_available=(int(ram[2]) - int(ram[1])) << 20 if ram else None,
    )


def parse_log(log: str, interval_ns: int = 1_000_000_000) -> Iterator[DeviceReading]:
    """Read a whole log whose lines are ``interval_ns`` apart (tegrastats --interval counts in milliseconds)."""
    lines = log.splitlines()
    return (reading for at, line in enumerate(lines) if (reading := parse(line, at * interval_ns)) is not None)
