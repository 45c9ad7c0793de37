"""What a process used and waited for, and when a measurement is called starved."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overflight.bench.processor_time import ENOUGH, ProcessorTime

needs_schedstat = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel counts no waiting")
BUSY = "import os\nos.sched_setaffinity(0, {cpu})\nprint(flush=True)\nwhile True: pass"


@needs_schedstat
def test_work_that_shares_its_core_is_starved() -> None:
    """Three busy processes on the only core that this one may use."""
    allowed = os.sched_getaffinity(0)
    cpu = {min(allowed)}
    others = [subprocess.Popen([sys.executable, "-c", BUSY.format(cpu=cpu)], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        os.sched_setaffinity(0, cpu)
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        used, child, end = ProcessorTime(), ProcessorTime(), time.process_time() + 0.3
        with used.measuring():
            while time.process_time() < end:
                pass
        figures = used.figures(1)
        child.add_child(others[0].pid, 1)
    finally:
        os.sched_setaffinity(0, allowed)
        for other in others:
            other.kill()
            other.communicate()
    assert figures["granted"] < ENOUGH
    assert figures["cores"] < ENOUGH
    assert child.cpu_ns > 0
    assert child.waited_ns


def test_what_sleeps_is_not_starved() -> None:
    """Waiting for a camera is not waiting for a core."""
    used = ProcessorTime(wall_ns=1_000_000, cpu_ns=10_000, waited_ns=100)
    assert used.figures(2)["granted"] > ENOUGH


@pytest.mark.parametrize(("cpu_ns", "granted"), [(400, 0.2), (1300, None)])
def test_a_kernel_that_counts_no_waiting_still_shows_the_worst(cpu_ns: int, granted: float | None) -> None:
    """Two threads that used a fifth of two cores are starved; two thirds may be all that the engine can use."""
    used = ProcessorTime(1000, 0, 0)
    used.add(0, cpu_ns, None)
    assert used.figures(2).get("granted") == granted


def test_nothing_measured_is_no_figure() -> None:
    """A subject that never had a turn."""
    assert ProcessorTime().figures(2) == {}
