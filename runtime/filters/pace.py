"""Pacing: which of the frames that arrive are evaluated, to save power where fewer are enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.runtime.frame import Frame

Passed = Literal["fps", "duty", "governed"]
_EARLY = 0.1  # of an interval: a camera's jitter must not turn half the rate into a third
_SMOOTH = 0.2  # weight of the newest interval in the usual one
_PAUSE_NS = 5_000_000_000  # a longer gap is a duty cycle or a lost camera, not an interval


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of a source is looked at.

    At most ``fps`` frames a second; the first ``duty[0]`` of every ``duty[1]`` seconds. ``latency_ms`` is how long a
    picture of this camera is under way before it arrives: stamps and ages reach back to the exposure by so much.
    ``similar`` is the change, in grey levels of the busiest part of the picture, up to which a frame counts as another
    look at the same and is skipped (see Gate); None looks at all.
    """

    fps: float | None = None
    duty: tuple[float, float] | None = None
    latency_ms: float = 0.0
    similar: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise UsageError(f"--fps {self.fps:g}: expected a number above 0")
        if self.duty is not None and not 0 < self.duty[0] <= self.duty[1] < math.inf:
            raise UsageError(f"--duty {self.duty[0]:g}/{self.duty[1]:g}: expected ON/PERIOD in seconds, such as 10/60")
        if self.latency_ms < 0:
            raise UsageError(f"--latency-ms {self.latency_ms:g}: expected 0 or more, a picture cannot arrive early")

    @staticmethod
    def parse_duty(text: str) -> tuple[float, float]:
        """Read ``10/60``: ten seconds of every sixty. Raises UsageError."""
        on, _, period = text.partition("/")
        try:
            return float(on), float(period)
        except ValueError as error:
            raise UsageError(f"--duty {text}: expected ON/PERIOD in seconds, such as 10/60") from error


class Pacer:
    """Keeps a pace over the frames of one source, by the time they were taken: a recording's own where it tells."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._latency_ns = int(pace.latency_ms * 1e6)
        self._interval_ns = int(1e9 / pace.fps) if pace.fps else 0
        self._first_ns: int | None = None
        self._due_ns = 0
        self._every = 1
        self._usual_ns = 0.0
        self._evaluated_ns: int | None = None

    def date(self, frame: Frame) -> Frame:
        """Return the frame with its stamps set back to the exposure."""
        if not self._latency_ns:
            return frame
        utc_ns = frame.captured_utc_ns
        return replace(
            frame,
            captured_ns=frame.captured_ns - self._latency_ns,
            captured_utc_ns=None if utc_ns is None else utc_ns - self._latency_ns,
        )

    def slow_down(self, every: int) -> None:
        """Evaluate only one in ``every`` of the frames that would be evaluated; may be called from another thread."""
        self._every = every

    def passes(self, frame: Frame) -> Passed | None:
        """Return why a frame is not evaluated, or None when it is its turn."""
        return self._paced(frame) or self._governed(frame.captured_ns)

    def _governed(self, now_ns: int) -> Passed | None:
        """Divide the rate that the source, the pace and the engine give together, measured while nothing is divided.

        By time, not by number: an engine slower than the camera would take the next frame at once.
        """
        since_ns = None if self._evaluated_ns is None else now_ns - self._evaluated_ns
        if since_ns is not None and self._every > 1 and since_ns < self._usual_ns * (self._every - _EARLY):
            return "governed"
        if since_ns is not None and (self._every == 1 or not self._usual_ns) and since_ns < _PAUSE_NS:
            self._usual_ns += (since_ns - self._usual_ns) * (_SMOOTH if self._usual_ns else 1.0)
        self._evaluated_ns = now_ns
        return None

    def _paced(self, frame: Frame) -> Passed | None:
        now_ns = frame.captured_ns if frame.media_ns is None else frame.media_ns
        if self._first_ns is None:
            self._first_ns = self._due_ns = now_ns
        if self._pace.duty is not None:
            on, period = self._pace.duty
            if (now_ns - self._first_ns) / 1e9 % period >= on:
                return "duty"
        if self._interval_ns:
            if now_ns < self._due_ns - self._interval_ns * _EARLY:
                return "fps"
            self._due_ns = max(self._due_ns, now_ns - self._interval_ns) + self._interval_ns
        return None
