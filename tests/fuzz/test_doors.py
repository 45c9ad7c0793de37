"""Every door takes any bytes: a few mutated inputs each, in every run; see ``fuzz.py`` for hours of it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from .doors import DOORS
from .fuzz import attempt, mutate

pytest.importorskip("cv2")
INPUTS = 150


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.filterwarnings("ignore")
def test_a_door_takes_any_bytes(name: str, tmp_path: Path) -> None:
    """An answer, or the kind of error that the door promises."""
    if name == "tlog":
        pytest.importorskip("pymavlink")
    if name in {"mbtiles", "pmtiles", "review-zip"}:
        pytest.importorskip("starlette")
        pytest.importorskip("pmtiles")
    rng, faults = random.Random(name), Counter[str]()
    seeds = DOORS[name].seeds()
    for seed in seeds:
        attempt(DOORS[name], seed, tmp_path, faults)
    for _ in range(INPUTS):
        attempt(DOORS[name], mutate(rng.choice(seeds), rng.choice(seeds), rng), tmp_path, faults)
    assert not faults
