"""Which engine flies: the proven default, never an unproven one unless forced, and the flight says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.doctor.memory_plan import require_flight
from overflight.runtime.doctor.tower import Tower
from overflight.runtime.errors import MissingError
from overflight.runtime.flight.directory import read_record
from overflight.runtime.flight.run import fly

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))


def test_with_nothing_built_the_reference_flies_and_says_what_build_would_gain(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """A first flight starts at once, on fp32, and its record names the way to a faster engine."""
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        assert (overflight.engine.info.target, overflight.engine.info.precision) == ("onnxruntime-cpu", "fp32")
        fly(overflight, "test://?frames=3&fps=0&size=64x48", tmp_path / "flight")
    assert "overflight build" in read_record(tmp_path / "flight").engine_note


def test_an_engine_that_was_not_built_is_missing(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """Asking for one by name never falls back in silence."""
    with pytest.raises(MissingError, match="run: overflight build"):
        Overflight.load(colour_bundle, colour_bank, target="openvino-cpu", precision="int8")


def test_a_flight_that_does_not_fit_is_refused_with_the_numbers(
    colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded; a graph that is none of ours has no prediction and is left to try."""
    require_flight(colour_bundle)
    large = Tower(weight_bytes=10**9, tokens=256, width=1024, inner=4096, products=((1024, 4096),) * 48)
    monkeypatch.setattr("overflight.runtime.doctor.memory_plan.read_tower", lambda graph: large)
    monkeypatch.setattr("overflight.runtime.doctor.memory_plan.usable_here", lambda: (512 << 20, 0))
    with pytest.raises(MissingError, match=r"a flight on onnxruntime-cpu fp32 takes .* GiB too little"):
        require_flight(colour_bundle)
    monkeypatch.setattr("overflight.runtime.doctor.memory_plan.usable_here", lambda: (16 << 30, 0))
    require_flight(colour_bundle)
