"""The newest picture: made only for who looks, never twice within a moment."""

from __future__ import annotations

import numpy as np
import pytest

from overflight.runtime.flight import newest as module
from overflight.runtime.flight.newest import EVERY_NS, WANTED_NS, NewestPicture
from overflight.runtime.frame import Frame

pytest.importorskip("cv2")


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns


def frame(grey: int) -> Frame:
    """Return a frame of one colour."""
    return Frame(np.full((48, 64, 3), grey, np.uint8), 0, 0)


def test_a_picture_is_made_for_who_asks_and_not_more_often_than_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing before the first question; then the next frame, one in so many, and nothing once nobody asks."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    newest = NewestPicture()
    newest.offer(1, frame(10))
    assert newest.ask() is None
    newest.offer(2, frame(20))
    made = newest.ask()
    assert made is not None
    assert (made[0], made[1][:3]) == (2, b"\xff\xd8\xff")
    newest.offer(3, frame(30))
    assert newest.ask() == made
    clock.now_ns += EVERY_NS
    newest.offer(4, frame(40))
    assert (newest.ask() or (0, b""))[0] == 4
    clock.now_ns += WANTED_NS + 1
    newest.offer(5, frame(50))
    assert newest.ask() is None
