"""Supervised workers: an exception is counted, logged and reported, and never ends the thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from overflight.runtime.worker import Worker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overflight.runtime.worker.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("overflight.runtime.worker.LONGEST_RETRY_S", 0.02)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)


@pytest.mark.parametrize(
    "error", [ValueError("bad"), RecursionError(), MemoryError(), UnicodeDecodeError("a", b"", 0, 1, "b")]
)
def test_a_worker_survives_any_exception(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    """While it fails it says why; then it works again, and the count stays."""
    fails, done = threading.Event(), threading.Event()
    fails.set()

    def step() -> float:
        if fails.is_set():
            raise error
        done.set()
        return 0.01

    worker = Worker("bank-watch", step)
    worker.start()
    kind = type(error).__name__
    until(lambda: worker.faults.counts[kind] >= 3)
    assert worker.trouble is not None
    assert worker.trouble.startswith(f"bank-watch: {kind}")
    fails.clear()
    until(lambda: done.is_set() and worker.trouble is None)
    assert worker.close(5)
    assert worker.faults.counts[kind] >= 3
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert lines[0]["what"] == "fault"
    assert (lines[0]["part"], lines[0]["count"]) == ("bank-watch", 1)
    assert lines[0]["at"].startswith("test_worker.py:")


def test_a_fault_each_step_does_not_fill_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """The 1st, 2nd, 4th, 8th … are logged."""

    def step() -> float:
        raise ValueError("always")

    worker = Worker("w", step)
    worker.start()
    until(lambda: worker.faults.counts["ValueError"] >= 9)
    worker.close(5)
    counts = [json.loads(line)["count"] for line in capfd.readouterr().err.splitlines()]
    assert counts[:4] == [1, 2, 4, 8]


def test_the_end_is_reached_whatever_happened() -> None:
    """``finish`` runs once after the last step, and its own exception is counted."""
    ended = []

    def finish() -> None:
        ended.append(1)
        raise OSError("disk")

    worker = Worker("w", lambda: None, finish)
    worker.start()
    assert worker.join(5)
    assert ended == [1]
    assert worker.faults.counts == {"OSError": 1}
    assert worker.trouble == "w: OSError: disk"


def test_waking_shortens_a_wait_and_closing_ends_it() -> None:
    """A step is called at once after ``wake``; ``close`` says whether the thread ended in time."""
    steps: list[int] = []

    def step() -> float:
        steps.append(1)
        return 60.0

    worker = Worker("w", step)
    worker.start()
    until(lambda: len(steps) == 1)
    worker.wake()
    until(lambda: len(steps) == 2)
    assert worker.close(5)
    hang = threading.Event()
    hanging = Worker("h", lambda: hang.wait(60) and None)
    hanging.start()
    assert not hanging.close(0.05)
    hang.set()
    assert hanging.join(5)


def test_a_thread_that_ended_by_itself_is_a_trouble() -> None:
    """A worker that nobody closed and whose thread is gone does not pass for a working one."""
    worker = Worker("w", lambda: None)
    worker.start()
    assert worker.join(5)
    assert worker.trouble == "w: its thread has ended"
    worker.close()
    assert worker.trouble is None
