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

WHOLE_S = 600.0
STEP_SHARE = 0.4  # of the whole, at most: a builder on a small board takes minutes
_WORTH_S = 5.0  # a step begun with less left would only be stopped
_ABSENT = 3
_TOO_LONG = "took longer than"


def run_steps(steps: Sequence[str], work: Path, bundle: Path | None, *, whole_s: float = WHOLE_S) -> Iterator[Outcome]:
    """Yield an outcome per step as it ends. A step that crashes or hangs has failed; the next one runs.

    All of them take ``whole_s`` at most. What then remains is reported as not reached.
    """
    until_s = time.monotonic() + whole_s
    for step in steps:
        left_s = until_s - time.monotonic()
        if left_s < min(_WORTH_S, whole_s / 2):
            yield Outcome(step, "not reached", 0.0, reason=f"the {whole_s / 60:g} minutes were over")
            continue
        share_s = STEP_SHARE * whole_s
        outcome = _run(step, work, bundle, min(share_s, left_s))
        if left_s < share_s and outcome.reason.startswith(_TOO_LONG):
            outcome = Outcome(step, "not reached", outcome.seconds, reason=f"the {whole_s / 60:g} minutes ended in it")
        yield outcome


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
        return Outcome(step, "failed", _since(began), reason=f"{_TOO_LONG} {step_s:g} s")
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
