"""Processor time: whether measured work got the processor time that it could have used."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ENOUGH = 0.9  # below this share of the processor time that it could have used, a measurement says nothing


@dataclass
class ProcessorTime:
    """What threads used (``cpu_ns``) and how long they waited for a core (``waited_ns``) in ``wall_ns``.

    ``waited_ns`` is None where the kernel does not count it (/proc/PID/schedstat).
    """

    wall_ns: int = 0
    cpu_ns: int = 0
    waited_ns: int | None = 0

    def add(self, wall_ns: int, cpu_ns: int, waited_ns: int | None) -> None:
        """Add another measurement."""
        self.wall_ns += wall_ns
        self.cpu_ns += cpu_ns
        self.waited_ns = None if self.waited_ns is None or waited_ns is None else self.waited_ns + waited_ns

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Add what this process uses inside the block."""
        wall_ns, cpu_ns, waited_ns = time.perf_counter_ns(), time.process_time_ns(), _schedule("self")[1]
        try:
            yield
        finally:
            wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
            now = _schedule("self")[1]
            self.add(wall_ns, cpu_ns, None if now is None or waited_ns is None else max(0, now - waited_ns))

    def add_child(self, pid: int, wall_ns: int) -> None:
        """Add what a running child has used since it was started ``wall_ns`` ago."""
        cpu_ns, waited_ns = _schedule(str(pid))
        self.add(wall_ns, cpu_ns or 0, waited_ns)

    def figures(self, threads: int) -> dict[str, float]:
        """Return a row's figures: ``cores`` is CPU time over wall time, ``granted`` the share of what could be used.

        Where the kernel counts no waiting, ``granted`` is CPU time over what the threads could have used at most, and
        is given only below one half: an engine that uses two thirds of its threads is not starved.
        """
        if not self.wall_ns:
            return {}
        found = {"cores": self.cpu_ns / self.wall_ns}
        if self.waited_ns is not None:
            return found | {"granted": self.cpu_ns / max(1, self.cpu_ns + self.waited_ns)}
        share = found["cores"] / (threads or os.cpu_count() or 1)
        return found | ({"granted": share} if share < 0.5 else {})


def _schedule(process: str) -> tuple[int | None, int | None]:
    """Add up the CPU and waiting time of a process's threads. https://docs.kernel.org/scheduler/sched-stats.html"""
    counts = []
    with suppress(OSError):  # the process may end at any moment
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):  # and so may a thread
                counts.append((task / "schedstat").read_text(encoding="ascii").split())
    if not counts:
        return None, None
    return sum(int(count[0]) for count in counts), sum(int(count[1]) for count in counts)
