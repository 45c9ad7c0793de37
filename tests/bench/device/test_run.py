"""The check of a device: one line per step, whatever happened to the step before.

Covers: bench/device/graphs.py, bench/device/outcome.py, bench/device/steps.py.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from overflight.bench.commands.bench import command
from overflight.bench.device import run, steps
from overflight.bench.device.outcome import Outcome, markdown, summary
from overflight.runtime.errors import MissingError


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ('print(\'noise\'); print(\'{"passed":true,"figures":{"p50 ms":1.5}}\')', "passed", ""),
        ('print(\'{"passed":false,"reason":"graphs were lost"}\')', "failed", "graphs were lost"),
        ('print(\'{"passed":false,"reason":"no GPU"}\'); raise SystemExit(3)', "absent", "no GPU"),
        ("import os; os.kill(os.getpid(), 11)", "failed", "ended by SIGSEGV: no reason given"),
        ("raise RuntimeError('cudaErrorIllegalAddress')", "failed", "code 1: RuntimeError: cudaErrorIllegalAddress"),
        ("pass", "failed", "ended with code 0: no reason given"),
        ("import time; time.sleep(60)", "failed", "took longer than 1 s"),
    ],
)
def test_a_step_that_fails_crashes_or_hangs_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, status: str, reason: str
) -> None:
    """Its process ends; the next step runs all the same."""
    real = subprocess.Popen

    def popen(asked: list[str], **options: Any) -> Any:
        return real([asked[0], "-c", body], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(run, "STEP_SHARE", 1 / 60 if "sleep" in body else 0.5)
    first, second = run.run_steps(["doctor", "energy"], tmp_path, None, whole_s=60.0)
    assert (first.status, second.step) == (status, "energy")
    assert first.reason.endswith(reason)
    assert first.figures == ({"p50 ms": 1.5} if status == "passed" else {})


def test_when_the_time_is_up_the_rest_is_not_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The step that the end cuts off has not failed; those after it are not begun, and each has its line."""
    real, begun = subprocess.Popen, []

    def popen(asked: list[str], **options: Any) -> Any:
        begun.append(asked[3])
        body = "print('{\"passed\":true}')" if asked[3] == "doctor" else "import time; time.sleep(60)"
        return real([asked[0], "-c", body], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(run, "STEP_SHARE", 2.0)
    found = list(run.run_steps(["doctor", "build fp16", "energy", "resize 4K"], tmp_path, None, whole_s=3.0))
    assert [one.status for one in found] == ["passed", "not reached", "not reached", "not reached"]
    assert begun == ["doctor", "build fp16"]
    assert [one.reason for one in found[1:]] == ["the 0.05 minutes ended in it", *["the 0.05 minutes were over"] * 2]
    assert summary(found) == "1 passed, 0 failed, 0 absent, 3 not reached"


def test_the_steps_that_only_a_gpu_can_show_come_first() -> None:
    """A time that is too short loses the processor's own steps, which any other machine can run."""
    order = list(steps.STEPS)
    assert order[:2] == ["prepare", "doctor"]
    assert order.index("memory mapped") < order.index("build fp16") < order.index("next to torch B/16-256")
    assert order[-2:] == ["resize 4K", "frames onnxruntime-cpu fp32"]
    assert all(f"build {name}" in order for name in ("fp16", "int8-joined", "int8-parted"))


def test_the_record_has_every_step_and_figure() -> None:
    """As they came out, absent ones with their reason."""
    outcomes = [
        Outcome("build fp16", "passed", 41.26, {"fused_attention": 12, "plan MB": 180.25}),
        Outcome("tensorrt fp16", "absent", 0.4, reason="TensorRT is not installed | here"),
    ]
    page = markdown(outcomes, "orin nano, 2026-11-25", {"machine": "Orin Nano"})
    assert page.splitlines()[0] == "### orin nano, 2026-11-25"
    assert "| build fp16 | passed | 41.3 | fused_attention 12; plan MB 180.2 |" in page
    assert "| tensorrt fp16 | absent | 0.4 | TensorRT is not installed \\| here |" in page
    assert summary(outcomes) == "1 passed, 0 failed, 1 absent"


def test_the_order_finds_an_engine_that_mixes_up_its_batches(tmp_path: Path) -> None:
    """An answer that belongs to another frame, and one that depends on the batch, both fail."""
    vectors = np.eye(16, 32, dtype=np.float32)
    np.save(tmp_path / "frames.npy", np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8))
    np.save(tmp_path / "reference.npy", vectors)

    def engine(answer: Any) -> Any:
        return SimpleNamespace(embed=answer, close=lambda: None)

    good = engine(lambda frames: vectors[frames[:, 0, 0, 0]])
    assert steps._in_order(good, tmp_path, "fp16", {}).passed
    stale = engine(lambda frames: np.roll(vectors[frames[:, 0, 0, 0]], len(frames) == 3, axis=0))
    assert not steps._in_order(stale, tmp_path, "fp16", {}).passed
    tilted = engine(lambda frames: vectors[frames[:, 0, 0, 0]] * (1.0 if len(frames) == 1 else 0.99))
    assert not steps._in_order(tilted, tmp_path, "fp16", {}).passed


def test_a_machine_without_a_gpu_reports_every_gpu_step_as_absent(tmp_path: Path) -> None:
    """Through the real processes; what this machine has, runs."""
    try:
        from overflight.runtime.engines.driver import first_gpu

        first_gpu()
        pytest.skip("this machine has a GPU")
    except MissingError:
        pass
    chosen = ["memory mapped", "build fp16", "onnxruntime-cuda fp16"]
    arguments = [word for step in chosen for word in ("--step", step)]
    record, lines = tmp_path / "record.md", tmp_path / "device.jsonl"
    done = CliRunner().invoke(
        command, ["device", *arguments, "--work", str(tmp_path / "work"), "--out", str(lines), "--record", str(record)]
    )
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(one["step"], one["status"]) for one in found] == [(step, "absent") for step in chosen]
    assert all(one["reason"] for one in found)
    assert "0 passed, 0 failed, 3 absent" in record.read_text()


def test_a_package_that_is_not_installed_is_absent_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by running the packed check on a machine without cuda-bindings."""

    def step(work: Path, bundle: Path | None) -> Any:
        raise ModuleNotFoundError("No module named 'cuda'")

    monkeypatch.setitem(steps.STEPS, "memory mapped", step)
    monkeypatch.setattr("sys.argv", ["steps", "memory mapped", str(tmp_path), ""])
    with pytest.raises(SystemExit) as ended:
        steps.main()
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().out)["reason"] == "No module named 'cuda'"


def test_an_unknown_step_is_a_usage_error() -> None:
    """With the names of those there are."""
    done = CliRunner().invoke(command, ["device", "--step", "levitate"])
    assert "no such step; expected one of prepare, doctor" in str(done.exception)


@pytest.mark.slow
def test_graphs_of_a_bundle_are_written_in_every_precision(tower_bundle: Any, tmp_path: Path) -> None:
    """From an uncalibrated bundle too; the reference answers for each frame."""
    from overflight.bench.device.graphs import NAMES, write_graphs

    sizes = write_graphs(tmp_path, tower_bundle.directory)
    assert set(sizes) == set(NAMES)
    assert np.load(tmp_path / "reference.npy").shape == (16, 32)
