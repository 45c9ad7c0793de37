"""Timing: which engines are open together, and what the device was doing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.export import timing
from overflight.jetson.telemetry import DeviceReading
from overflight.runtime.progress import unreported


class FakeEngine:
    """Notes which others are open whenever it is called."""

    def __init__(self, name: str, open_now: set[str], seen: dict[str, set[str]]) -> None:
        self.name, self.open_now, self.seen = name, open_now, seen
        open_now.add(name)

    def embed(self, frames: Any) -> Any:
        self.seen.setdefault(self.name, set()).update(self.open_now)
        return np.zeros((len(frames), 4), np.float32)

    def close(self) -> None:
        self.open_now.discard(self.name)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Any:
    open_now: set[str] = set()
    seen: dict[str, set[str]] = {}
    mhz = iter(range(306, 3000, 100))

    def reading() -> DeviceReading:
        return DeviceReading(0, power_mode="15W", gpu_mhz=next(mhz), gpu_limit_mhz=625, temperatures_c={"gpu": 51.0})

    monkeypatch.setattr(timing, "open_entry", lambda bundle, entry: FakeEngine(entry.path.name, open_now, seen))
    monkeypatch.setattr(timing, "read_any", reading)
    monkeypatch.setattr(timing, "_BUDGET_S", 0.0)
    monkeypatch.setattr(timing, "_GPU_WARM_S", 0.0)

    def run(*targets: str) -> tuple[timing.EngineTimings, dict[str, set[str]]]:
        entries: Any = [
            SimpleNamespace(path=Path(f"{target}-{number}"), record=SimpleNamespace(target=target, precision="fp16"))
            for number, target in enumerate(targets)
        ]
        bundle: Any = SimpleNamespace(file=Path)
        frames = np.zeros((4, 8, 8, 3), np.uint8)
        return timing.time_engines(bundle, entries, frames, None, unreported), seen

    return run


def test_gpu_engines_are_timed_alone(timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor engines take turns; a GPU engine has the device for itself, and its clocks are recorded."""
    monkeypatch.setattr(timing, "_fit_together", lambda bundle, entries: True)
    found, seen = timed("onnxruntime-cpu", "tensorrt", "openvino-cpu", "tensorrt")
    together = {"onnxruntime-cpu-0", "openvino-cpu-2"}
    assert seen == {
        "onnxruntime-cpu-0": together,
        "openvino-cpu-2": together,
        "tensorrt-1": {"tensorrt-1"},
        "tensorrt-3": {"tensorrt-3"},
    }
    state = found.by_entry[Path("tensorrt-1")].device
    assert (state.power_mode, state.gpu_mhz, state.gpu_limit_mhz, state.hottest_c) == ("15W", (506, 606), 625, 51.0)


def test_where_memory_is_short_engines_are_opened_one_at_a_time(timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a board of 4 GB three towers do not fit."""
    monkeypatch.setattr(timing, "_fit_together", lambda bundle, entries: False)
    found, seen = timed("onnxruntime-cpu", "openvino-cpu")
    assert all(names == {name} for name, names in seen.items())
    assert len(found.by_entry) == 2


def test_what_fits_is_read_from_the_memory_plan(monkeypatch: pytest.MonkeyPatch, tower_bundle: Any) -> None:
    """The sum of the peaks, with the margin; unknown memory refuses nothing."""
    entries: Any = [SimpleNamespace(record=SimpleNamespace(target="openvino-cpu", precision="int8"))] * 3
    for usable, expected in ((8 << 30, True), (1 << 29, False), (0, True)):
        monkeypatch.setattr(timing, "usable_here", lambda usable=usable: (usable, 0))
        assert timing._fit_together(tower_bundle, entries) is expected
