"""Building a plan in a child process: a builder that crashes, or is stopped, takes nothing else with it.

The parent writes one JSON line, a ``_Task``. The child writes a JSON line per step, a ``_Step``, the last one with the
layer counts or the reason of a failure. It stops when the parent closes its input, also because the parent was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.export.plan import LEVEL, PlanSettings, build_plan, inspect_file
from overflight.runtime.engines.record import LayerCounts
from overflight.runtime.errors import EngineError, OverflightError

if TYPE_CHECKING:
    from collections.abc import Callable

_STOP_S = 20.0  # a builder looks at its monitor between two tactics; one can take seconds
_KILLED = {signal.SIGKILL: ", probably for want of memory: see dmesg", signal.SIGSEGV: "", signal.SIGABRT: ""}


class _Task(msgspec.Struct, frozen=True):
    library: str
    graph: str
    plan: str
    workspace: int
    profiles: tuple[int, ...]
    level: int = LEVEL
    cache: str | None = None
    inspect: bool = True


class _Step(msgspec.Struct, frozen=True):
    share: float | None = None
    counts: LayerCounts | None = None
    error: str | None = None


def build_in_child(
    graph: Path,
    plan: Path,
    settings: PlanSettings,
    *,
    library: str = "tensorrt",
    cache_path: Path | None = None,
    inspect: bool = True,
    report: Callable[[float], None] = lambda share: None,
) -> LayerCounts:
    """Build ``graph`` into ``plan`` in a child process and return the counts of its layers.

    ``inspect`` loads the plan on the GPU and counts there, which also proves that it loads; without a GPU the
    builder's log is counted. Raises EngineError for a graph that cannot be built and for a builder that crashed. On
    KeyboardInterrupt the build is stopped, its timings are kept, and the exception goes on.
    """
    task = _Task(
        library,
        str(graph),
        str(plan),
        settings.workspace,
        settings.profiles,
        settings.level,
        None if cache_path is None else str(cache_path),
        inspect,
    )
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C reaches the parent only, which stops the child in good order
    )
    with _Errors(child) as errors:
        try:
            return _follow(child, task, errors, report)
        finally:
            _stop(child)


def _follow(
    child: subprocess.Popen[bytes], task: _Task, errors: _Errors, report: Callable[[float], None]
) -> LayerCounts:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(msgspec.json.encode(task) + b"\n")
        child.stdin.flush()
    for line in child.stdout:
        try:
            step = msgspec.json.decode(line, type=_Step)
        except msgspec.DecodeError:
            continue  # a library that prints
        if step.share is not None:
            report(step.share)
        if step.error is not None:
            raise EngineError(step.error)
        if step.counts is not None:
            return step.counts
    code = child.wait()
    graph = Path(task.graph).name
    if code < 0:
        name = signal.Signals(-code).name
        reason = _KILLED.get(signal.Signals(-code), "")
        raise EngineError(f"{graph}: the builder was ended by {name}{reason}; {errors.last() or 'it gave no reason'}")
    raise EngineError(f"{graph}: the builder ended with code {code}; {errors.last() or 'it gave no reason'}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Close the child's input, which asks it to stop, wait, and end it when it does not."""
    assert child.stdin is not None
    with suppress(OSError):
        child.stdin.close()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


class _Errors:
    """What a child writes to its error output, read while it runs: a full pipe would block it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._pipe: Any = child.stderr
        self._tail = b""
        self._thread = threading.Thread(target=self._read, name="plan-errors", daemon=True)

    def __enter__(self) -> _Errors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(1.0)
        self._pipe.close()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while chunk := self._pipe.read1(1 << 12):
                self._tail = (self._tail + chunk)[-(1 << 12) :]

    def last(self) -> str:
        """Return the last line that it wrote."""
        self._thread.join(1.0)
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else ""


def _say(step: _Step) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(step) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Build what the parent asks for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Task)
    stopped = threading.Event()

    def watch() -> None:
        os.read(0, 1)  # not through sys.stdin, whose lock the interpreter would wait for at its end
        stopped.set()

    threading.Thread(target=watch, name="plan-parent", daemon=True).start()
    try:
        _say(_Step(counts=_build(task, stopped)))
    except OverflightError as error:
        _say(_Step(error=str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def _build(task: _Task, stopped: threading.Event) -> LayerCounts:
    settings = PlanSettings(task.workspace, task.profiles, task.level)
    cache = None if task.cache is None else Path(task.cache)
    plan = Path(task.plan)

    def report(share: float) -> None:
        with suppress(BrokenPipeError):
            _say(_Step(share=share))

    trt = import_module(task.library)
    counts = build_plan(
        trt, Path(task.graph), plan, settings, cache_path=cache, report=report, is_stopped=stopped.is_set
    )
    return inspect_file(trt, plan) if task.inspect else counts


if __name__ == "__main__":
    main()
