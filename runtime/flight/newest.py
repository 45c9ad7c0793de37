"""The newest frame as a small picture, made only while somebody looks at the flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from overflight.runtime.flight.pictures import small_jpeg

if TYPE_CHECKING:
    from overflight.runtime.frame import Frame

EVERY_NS = 400_000_000
WANTED_NS = 3_000_000_000  # so long after a question the next pictures are made


class NewestPicture:
    """Offered every frame by the flight's thread, asked by the health server's; single assignments, no lock.

    A flight that nobody looks at pays one comparison a frame; one that is looked at, a small JPEG twice a second.
    """

    def __init__(self) -> None:
        self._asked_ns: int | None = None
        self._made_ns = 0
        self._kept: tuple[int, bytes] | None = None

    def offer(self, number: int, frame: Frame) -> None:
        """Make the picture of a frame where one is wanted and the last is old enough."""
        asked_ns = self._asked_ns
        if asked_ns is None:
            return
        now_ns = time.monotonic_ns()
        if now_ns - asked_ns > WANTED_NS:
            self._asked_ns, self._kept = None, None  # the next who asks does not get an old one
        elif now_ns - self._made_ns >= EVERY_NS:
            self._made_ns = now_ns
            if jpeg := small_jpeg(frame):
                self._kept = number, jpeg

    def ask(self) -> tuple[int, bytes] | None:
        """Return the newest picture with its frame, None where the first is still to be made."""
        self._asked_ns = time.monotonic_ns()
        return self._kept
