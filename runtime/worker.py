"""A supervised thread: any exception of its work is counted, logged and reported, and the work goes on with backoff."""

from __future__ import annotations

import random
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.log import say

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 10.0


class Faults:
    """The unexpected exceptions of one part: ``counts`` by class, and ``trouble`` while the last attempt failed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.trouble: str | None = None

    def note(self, error: Exception) -> None:
        """Count an exception; log the 1st, 2nd, 4th, … of its class, so that one each second does not fill the log."""
        kind = type(error).__name__
        self.counts[kind] += 1
        count = self.counts[kind]
        self.trouble = f"{self.name}: {kind}: {error}"
        if count & (count - 1) == 0:
            say("fault", part=self.name, error=f"{kind}: {error}", at=_place(error), count=count)

    def clear(self) -> None:
        """Note that an attempt succeeded; the counts stay."""
        self.trouble = None


class Worker:
    """Calls ``step`` again and again in a thread of its own.

    ``step`` returns the seconds until its next call, or None when its work is finished. ``finish`` is called once at
    the end, whatever happened before. An exception of either is noted in ``faults``; the next step follows with
    backoff of at most ``longest_retry_s``. Workers that replace each other share their ``faults``. The thread ends only
    by ``close``, or when ``step`` returns None.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        finish: Callable[[], None] | None = None,
        *,
        faults: Faults | None = None,
        longest_retry_s: float | None = None,
    ) -> None:
        self.faults = faults or Faults(name)
        self._longest_retry_s = longest_retry_s
        self._step = step
        self._finish = finish
        self._retry_s = FIRST_RETRY_S
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """End the current wait between two steps; a backoff after a fault goes on. Safe in a signal handler."""
        self._wake.set()

    def close(self, within_s: float | None = None) -> bool:
        """Let the current step end, finish, and wait for it; return False if that takes longer than ``within_s``."""
        self._closed.set()
        self._wake.set()
        return self.join(within_s)

    def join(self, within_s: float | None = None) -> bool:
        """Wait for the end of the thread; return whether it ended within ``within_s``."""
        if self._thread.ident is not None:
            self._thread.join(within_s)
        return not self._thread.is_alive()

    @property
    def trouble(self) -> str | None:
        """Why the worker does not do its work now, or None."""
        dead = self._thread.ident is not None and not self._thread.is_alive() and not self._closed.is_set()
        return self.faults.trouble or (f"{self.faults.name}: its thread has ended" if dead else None)

    def _run(self) -> None:
        pause_s: float | None = 0.0
        while pause_s is not None and not self._closed.is_set():
            self._wake.clear()
            pause_s = self._attempt()
            if pause_s and not self._closed.is_set():
                self._wake.wait(pause_s)
        if self._finish is not None:
            try:
                self._finish()
            except Exception as error:
                self.faults.note(error)

    def _attempt(self) -> float | None:
        try:
            pause_s = self._step()
        except Exception as error:
            self.faults.note(error)
            self._closed.wait(self._retry_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries, guards nothing
            self._retry_s = min(self._retry_s * 2, self._longest_retry_s or LONGEST_RETRY_S)
            return 0.0
        self.faults.clear()
        self._retry_s = FIRST_RETRY_S
        return pause_s


def _place(error: Exception) -> str:
    """Return where an exception was raised, as ``file.py:line``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
