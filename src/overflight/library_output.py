"""What libraries write to standard error by themselves, caught and repeated as lines of ours.

libjpeg, FFmpeg, OpenCV and the engines write to file descriptor 2 from C, one line per damaged row or packet. Each
line is reported once; the repetitions are counted.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_LINES = 10  # different lines that are repeated; a library that says more has nothing new to say
LONGEST = 300


class _Reader:
    """Reads the lines of a pipe in a thread and reports each different one once."""

    def __init__(self, pipe: int, report: Callable[[str], None]) -> None:
        self._pipe, self._report = pipe, report
        self._seen: set[str] = set()
        self._repeated = 0
        self._thread = threading.Thread(target=self._read, name="library-output", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report how many lines were not repeated. A child process may still hold the pipe, so this does not wait."""
        self._thread.join(0.5)
        if self._repeated:
            self._report(f"{self._repeated} more lines from libraries")

    def _read(self) -> None:
        with open(self._pipe, encoding="utf-8", errors="backslashreplace") as lines:  # noqa: PTH123 - a descriptor
            for line in lines:
                text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
                kind = re.sub(r"0x[0-9a-f]+|\d+", "0", text)
                if not kind:
                    continue
                if kind in self._seen or len(self._seen) >= MOST_LINES:
                    self._repeated += 1
                    continue
                self._seen.add(kind)
                self._report(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


@contextmanager
def captured(report: Callable[[str], None]) -> Iterator[None]:
    """Send what is written to descriptor 2 to ``report``, line by line; ``sys.stderr`` keeps the real one."""
    try:
        real = os.dup(2)
    except OSError:  # started without a standard error
        yield
        return
    out, into = os.pipe()
    previous = sys.stderr
    mine = open(real, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
    sys.stderr = mine
    faulthandler.enable(mine)  # a crash in a library would otherwise leave nothing
    os.dup2(into, 2)
    os.close(into)
    reader = _Reader(out, report)
    try:
        yield
    finally:
        os.dup2(real, 2)  # closes the pipe's last writing end in this process
        reader.close()
        faulthandler.disable()
        sys.stderr = previous
        mine.close()
