"""Running the steps one after the other, each in its own process, whatever happened to the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from overflight.bench.device.outcome import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STEP_S = 240.0  # a builder on a small board takes minutes
_ABSENT = 3


def run_steps(steps: Sequence[str], work: Path, bundle: Path | None, *, step_s: float = STEP_S) -> Iterator[Outcome]:
    """Yield an outcome per step as it ends. A step that crashes or hangs has failed; the next one runs."""
    for step in steps:
        yield _run(step, work, bundle, step_s)


def _run(step: str, work: Path, bundle: Path | None, step_s: float) -> Outcome:
    began = time.monotonic()
    command = [sys.executable, "-m", "overflight.bench.device.steps", step, str(work), str(bundle or "")]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=step_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return Outcome(step, "failed", _since(began), reason=f"took longer than {step_s:g} s")
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    return _outcome(step, child.returncode, out, err, _since(began))


def _outcome(step: str, code: int, out: str, err: str, seconds: float) -> Outcome:
    lines = out.strip().splitlines()
    try:
        answer = msgspec.json.decode(lines[-1], type=Answer) if lines else None
    except msgspec.DecodeError:
        answer = None
    if code == _ABSENT and answer is not None:
        return Outcome(step, "absent", seconds, reason=answer.reason)
    if code == 0 and answer is not None:
        return Outcome(step, "passed" if answer.passed else "failed", seconds, answer.figures, answer.reason)
    last = (err.strip().splitlines() or ["no reason given"])[-1][:300]
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return Outcome(step, "failed", seconds, reason=f"{how}: {last}")


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
