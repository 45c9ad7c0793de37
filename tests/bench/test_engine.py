"""Subjects in their own processes, in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.bench.engine import EVERY, Field, groups, measure
from overflight.bench.sample import SamplingPlan
from overflight.runtime.bundle import Bundle

PLAN = SamplingPlan(3, 3, 0.0, warm_ups=1, settle_s=0)


def field(bundle: Bundle, *subjects: str, **more: object) -> Field:
    return Field(bundle.directory, subjects, threads=1, frames=2, source="test://?fps=0&frames=40&size=160x120", **more)  # type: ignore[arg-type]


def test_our_engine_gives_a_complete_row(colour_bundle: Bundle) -> None:
    """Samples, first inference listed separately, hashes of what ran and on what, memory, and the floor."""
    (row,) = measure(field(colour_bundle, "ours:fp32"), PLAN)
    assert len(row.samples) == 3
    assert min(row.samples) > 0
    assert row.figures["first_ns"] > 0
    assert row.figures["peak_bytes"] > 10e6
    assert row.hashes["bundle"] == colour_bundle.sha256
    assert row.hashes["graph"] == colour_bundle.manifest.files["image.onnx"]
    assert len(row.hashes["frames"]) == 64
    assert "onnxruntime-cpu" in row.versions
    assert row.floor is not None
    assert set(row.floor.per_s) == {"fp32", "int8", "bytes"}


def test_who_cannot_run_says_why(colour_bundle: Bundle, tmp_path: Path) -> None:
    """The others are measured all the same."""
    reported = measure(field(colour_bundle, "ours:fp32", "transformers_torch:fp32", checkpoint=tmp_path), PLAN)
    assert reported[0].samples
    assert not reported[1].samples
    assert "transformers_torch" in reported[1].reason
    reported = measure(field(colour_bundle, "flown:fp32", "naive:fp32"), PLAN, name="classify")
    assert "--checkpoint" in reported[1].reason


def test_every_peer_has_a_group_with_the_baseline() -> None:
    """Whatever fits into memory together."""
    for at_once in (1, 3, 20):
        towers = [subjects for name, subjects in groups(at_once) if name == "engine"]
        assert {title for subjects in towers for title in subjects} == {*EVERY, "ours:fp32"}
        assert all(subjects[0] == "transformers_torch:fp32" and len(subjects) <= at_once + 2 for subjects in towers)


@pytest.mark.torch
@pytest.mark.slow
def test_transformers_answers_as_we_do(tmp_path: Path) -> None:
    """The same weights on the same frames: the peer's cosine to ours is one, so what is timed is the same work."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from importlib.util import module_from_spec, spec_from_file_location

    from overflight.export.assemble import export

    spec = spec_from_file_location("writers", Path(__file__).parents[1] / "export" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    writers = module_from_spec(spec)
    spec.loader.exec_module(writers)
    checkpoint = writers.write_checkpoint(tmp_path / "checkpoint", writers.TINY["siglip2"])
    bundle = export(checkpoint, tmp_path / "bundle")
    rows = measure(field(bundle, "transformers_torch:fp32", "ours:fp32", checkpoint=checkpoint), PLAN)
    assert rows[1].figures["cosine_min"] == pytest.approx(1, abs=1e-4)
