"""A child process whose processor time the kernel limits: what runs away is killed, and its peak memory is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

CPU_S = 20  # the attacks that these tests repeat took 27 to more than 120 s
_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({cpu_s}, {cpu_s}))
"""
# Not getrusage: its peak includes the parent's memory from before exec.
_PEAK = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("peak", int(status["VmHWM"].split()[0]) // 1024)
"""


class Ended(NamedTuple):
    """How a child ended: its exit code, what it printed and its peak memory in MB."""

    code: int
    said: str
    peak_mb: int


@pytest.fixture
def limited() -> Callable[..., Ended]:
    """Return what runs Python code in a child of ``CPU_S`` seconds of processor time."""

    def run(code: str, *arguments: str) -> Ended:
        whole = _LIMIT.format(cpu_s=CPU_S) + code + _PEAK
        done = subprocess.run([sys.executable, "-c", whole, *arguments], check=False, capture_output=True, text=True)
        peak = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("peak ")]
        return Ended(done.returncode, done.stdout + done.stderr, int(peak[0]) if peak else -1)

    return run
