"""Energy that a period of work used, by the meter that this machine has."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from overflight.jetson import telemetry

_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Drawn:
    """Joules between start and stop, by which meter; None and "not available" where there is none."""

    joules: float | None
    meter: str
    throttled: str = "not available"


@dataclass
class Meter:
    """Reads a Jetson's rails, Intel's RAPL counters or an NVIDIA GPU's draw, once a second, in a thread of its own."""

    root: Path = Path("/")
    _stop: threading.Event = field(default_factory=threading.Event)
    _readings: list[telemetry.DeviceReading] = field(default_factory=list)
    _gpu: list[tuple[float, float]] = field(default_factory=list)
    _trouble: str = ""

    def start(self) -> None:
        """Begin."""
        self._counters = _rapl(self.root)
        self._thread = threading.Thread(target=self._read, name="meter", daemon=True)
        self._thread.start()

    def stop(self) -> Drawn:
        """End; returns what was drawn. A watcher that died is said, never taken for a clean run."""
        self._stop.set()
        self._thread.join()
        if self._trouble:
            return Drawn(None, f"not available: {self._trouble}")
        if self._readings:
            verdict = telemetry.judge(self._readings)
            throttled = "; ".join(verdict.reasons) if verdict.throttled else "no"
            return Drawn(telemetry.joules(self._readings), "the module's rails", throttled)
        after = _rapl(self.root)
        if self._counters and after.keys() == self._counters.keys():
            spans = [_since(self._counters[name], after[name]) for name in after]
            return Drawn(sum(spans) / 1e6, "RAPL packages")
        if len(self._gpu) > 1:
            pairs = zip(self._gpu, self._gpu[1:])  # noqa: B905 - neighbours
            return Drawn(sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairs), "the GPU alone (NVML)")
        return Drawn(None, "not available")

    def _read(self) -> None:
        try:
            gpu = _gpu_watts() is not None
            while True:
                if (reading := telemetry.read(self.root)) is not None:
                    self._readings.append(reading)
                elif gpu and (watts := _gpu_watts()) is not None:
                    self._gpu.append((time.monotonic(), watts))
                if self._stop.wait(1.0):
                    return
        except Exception as error:
            self._trouble = str(error)


def _rapl(root: Path) -> dict[str, tuple[int, int]]:
    """Return each package's counter and its range, in microjoules; empty where the kernel shows none to this user."""
    found = {}
    for zone in sorted((root / _RAPL.relative_to("/")).glob("intel-rapl:[0-9]")):
        try:
            found[zone.name] = (int((zone / "energy_uj").read_text()), int((zone / "max_energy_range_uj").read_text()))
        except (OSError, ValueError):
            continue
    return found


def _since(before: tuple[int, int], after: tuple[int, int]) -> int:
    """The counter runs over at its range."""
    return (after[0] - before[0]) % (after[1] + 1)


def _gpu_watts() -> float | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return float(done.stdout.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
