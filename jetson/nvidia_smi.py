"""Readings of a discrete NVIDIA GPU, from nvidia-smi. Each takes a child process, so they are not for flights."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from overflight.jetson import telemetry
from overflight.jetson.telemetry import DeviceReading

_FIELDS = ("clocks.sm", "clocks.max.sm", "utilization.gpu", "temperature.gpu", "power.draw")
_TIMEOUT_S = 10


def read(command: str = "nvidia-smi") -> DeviceReading | None:
    """Take a reading of the first GPU; None where nvidia-smi is not installed or sees no GPU."""
    query = [command, "--id=0", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else parse(done.stdout)


def parse(line: str) -> DeviceReading | None:
    """Turn one line of its answer into a reading; "[N/A]" and "[Not Supported]" are left out."""
    values = [_number(part) for part in line.strip().split(",")]
    if len(values) != len(_FIELDS) or not any(value is not None for value in values):
        return None
    now_mhz, most_mhz, load, temperature_c, watts = values
    return DeviceReading(
        monotonic_ns=time.monotonic_ns(),
        gpu_mhz=None if now_mhz is None else int(now_mhz),
        gpu_limit_mhz=None if most_mhz is None else int(most_mhz),
        gpu_load=None if load is None else load / 100,
        temperatures_c={} if temperature_c is None else {"gpu": temperature_c},
        power_mw=None if watts is None else round(watts * 1000),
    )


def read_any(root: Path = Path("/")) -> DeviceReading | None:
    """Take a reading of whatever GPU this computer has: a board's through its kernel, another's through nvidia-smi."""
    return telemetry.read(root) if telemetry.on_device(root) else read()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
