"""Capture: its thread survives whatever a source raises, and counts it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.sources.capture import Capture


class Broken:
    """A camera that fails in a way that nobody expects, and fails again when it is closed."""

    name, live, count = "broken", True, None

    def __init__(self, error: Exception, *, closes: bool) -> None:
        self.error, self.closes = error, closes

    def frames(self) -> Iterator[Frame]:
        raise self.error

    def close(self) -> None:
        if not self.closes:
            raise RuntimeError("closing failed")


class Good(Broken):
    """A camera that delivers one frame after the other."""

    def frames(self) -> Iterator[Frame]:
        for number in range(1_000_000):
            yield Frame(np.zeros((4, 4, 3), np.uint8), number, time.monotonic_ns())
            time.sleep(0.005)


def first_frame(capture: Capture) -> Frame:
    return next(frame for frame in capture.frames() if frame is not None)


def test_a_source_that_raises_anything_even_when_closed_is_opened_again() -> None:
    """A reading thread that ended with the source's own fault would leave a flight without frames, and say nothing."""
    capture = Capture(Broken(ValueError("a driver's bug"), closes=False), lambda: Good(ValueError(), closes=True))
    try:
        assert first_frame(capture).pixels.shape == (4, 4, 3)
        assert sum(capture.faults.counts.values()) == 1
        assert capture.faults.trouble is None
        assert capture.take_dropped()["reconnect"] == 1
    finally:
        capture.close()


def test_a_camera_that_is_away_is_no_fault() -> None:
    """What a source is known to raise is the source's trouble, not ours."""
    capture = Capture(Broken(SourceError("away"), closes=True), lambda: Good(SourceError(), closes=True))
    try:
        first_frame(capture)
        assert not capture.faults.counts
    finally:
        capture.close()
