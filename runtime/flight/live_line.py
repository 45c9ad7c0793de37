"""Showing a flight as it goes: a progress bar for recordings, a live line for cameras."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream

_EVERY_NS = 100_000_000  # ten times a second is as fast as a person reads


class LiveLine:
    """One line on the terminal that follows the stream; nothing where no terminal is."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._progress: Any = None
        self._task: Any = None
        self._began_ns = 0
        self._shown_ns = 0
        self._count = 0

    def watch(self, stream: Stream, observation: Observation) -> None:
        """Show the newest observation."""
        self._count += 1
        now_ns = time.monotonic_ns()
        if self._silent or now_ns - self._shown_ns < _EVERY_NS:
            return
        self._shown_ns = now_ns
        if self._progress is None:
            self._start(stream)
        rate = self._count / max(1e-9, (now_ns - self._began_ns) / 1e9)
        label = observation.label or "unknown"
        lost = sum(stream.dropped.values())
        text = f"{rate:5.1f} frames/s  age {observation.age_ns / 1e6:4.0f} ms  lost {lost}  {label}"
        self._progress.update(self._task, completed=self._count, description=text)

    def _start(self, stream: Stream) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns: list[Any] = [TextColumn("{task.description}", markup=False)]
        if stream.source.count is not None:
            columns = [BarColumn(bar_width=24), TimeRemainingColumn(), *columns]
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=stream.source.count)
        self._progress.start()
        self._began_ns = time.monotonic_ns()

    def __enter__(self) -> LiveLine:
        self._began_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
