"""PyTorch's tower next to ONNX Runtime's: the same answers, and a run that always ends with its figures.

Covers: bench/device/torch_tower.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.bench.device import comparison
from overflight.bench.device.comparison import TOWERS, compare, next_to_torch
from overflight.bench.device.graphs import random_tower
from overflight.bench.device.torch_tower import TorchTower
from overflight.export.author import author_image
from overflight.runtime.engines.ort import OnnxRuntimeEngine
from overflight.runtime.errors import MissingError

PICTURES = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_torch_next_to_onnx_runtime_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small tower through the whole comparison: eager, traced by the compiler's front end, and the authored graph."""
    pytest.importorskip("torch")
    monkeypatch.setattr(comparison, "_TURNS", 2)
    tower = random_tower(32, 16, 32, 2, 2, uneven=0.3)
    author_image(tower, 32).save(tmp_path / "tower.onnx")
    compiled = TorchTower(tower, "cpu")
    compiled.compile("eager")  # the front end without the code generator, which takes a C++ compiler and minutes
    engine = OnnxRuntimeEngine(tmp_path / "tower.onnx", "0" * 64)
    engines = {"torch eager": TorchTower(tower, "cpu").embed, "torch compiled": compiled.embed, "ort": engine.embed}
    figures, least = compare(engines, PICTURES, (1, 3), time.monotonic() + 60)
    engine.close()
    assert least > 0.99999
    assert {f"{name}, batch {batch}, ms" for name in engines for batch in (1, 3)} <= set(figures)


def test_an_engine_that_fails_costs_its_own_figures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is missing on the machine must not lose the eager figures; a late batch size is stated."""
    monkeypatch.setattr(comparison, "_TURNS", 1)

    def fail(frames: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    engines: dict[str, Any] = {"torch eager": lambda frames: np.eye(len(frames), 8, dtype=np.float32), "broken": fail}
    figures, least = compare(engines, PICTURES, (1, 2), time.monotonic() + 60)
    assert figures["broken"] == "failed at batch 1: Failed to find C compiler."
    assert {"torch eager, batch 1, ms", "torch eager, batch 2, ms"} <= set(figures)
    assert least == 1.0
    assert compare(engines, PICTURES, (8,), time.monotonic() - 1)[0] == {"batch 8": "not begun, the time was up"}


def test_answers_of_another_tower_are_found() -> None:
    """The least cosine is that of the worst row."""
    turned: Any = lambda frames: np.roll(np.eye(len(frames), 8, dtype=np.float32), 1, axis=1)  # noqa: E731
    engines: dict[str, Any] = {"torch eager": lambda frames: np.eye(len(frames), 8, dtype=np.float32), "other": turned}
    assert compare(engines, PICTURES, (1,), time.monotonic() + 60)[1] == 0.0


def test_without_a_gpu_it_is_absent_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both towers; no graph is written."""
    torch = SimpleNamespace(__version__="2.13.0+cpu", cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(__import__("sys").modules, "torch", torch)
    for name in TOWERS:
        with pytest.raises(MissingError, match=r"PyTorch 2\.13\.0\+cpu sees no GPU"):
            next_to_torch(tmp_path, name)
    assert not list(tmp_path.iterdir())
