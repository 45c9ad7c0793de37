"""The hot functions, timed by pytest-benchmark and kept as ratios to a baseline, which hold on every machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.bench.check import HOT, read_budgets
from overflight.bench.peers.hot import hot_calls
from overflight.bench.sample import SamplingPlan, take_turns, timed
from overflight.bench.spread import ratio
from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import open_reference

pytest.importorskip("pytest_benchmark", reason="the timing's own library")
DEFAULT = Path(__file__).parents[2] / "models" / "bundle"


@pytest.fixture(scope="module")
def calls(colour_bundle: Bundle) -> Iterator[dict[str, Callable[[], object]]]:
    """Return a turn of every hot function on a 720p picture, of the default model where its bundle was made."""
    bundle = Bundle.open(DEFAULT) if (DEFAULT / "manifest.json").is_file() else colour_bundle
    engine = open_reference(bundle, threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    found = hot_calls(bundle, picture, engine.embed)
    frame = np.zeros((1, engine.side, engine.side, 3), np.uint8)
    yield {**found, "engine": lambda: engine.embed(frame)}
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HOT, "engine"])
def test_a_hot_function_keeps_its_ratio(benchmark: Any, calls: dict[str, Callable[[], object]], name: str) -> None:
    """No slower than its budget over the baseline, beyond the noise of the comparison."""
    benchmark.pedantic(calls[name], rounds=5, warmup_rounds=1)
    pair = {key: timed(calls[which], clock=time.thread_time_ns) for key, which in (("it", name), ("baseline",) * 2)}
    taken = take_turns(pair, SamplingPlan(15, 15, 0.0, settle_s=0))
    found = ratio(taken["it"], taken["baseline"])
    benchmark.extra_info["over the baseline"] = str(found)
    assert found.low <= read_budgets().hot[name], found
