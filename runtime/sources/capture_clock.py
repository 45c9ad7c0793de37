"""Capture time: when a live stream's pictures were taken, from their own time stamps and the fastest arrivals."""

from __future__ import annotations

from collections import deque

_BUCKET_NS = 10_000_000_000
_BUCKETS = 30  # five minutes: by then two clocks of 100 ppm are 30 ms apart, and a link that lags has been reopened
_BACK_NS = 500_000_000  # pictures out of order are nearer than this; a sender that starts again is farther
_AHEAD_NS = 5_000_000_000  # a step so much longer than the time between two arrivals is none of the sender's camera
_STRAYS = 3  # pictures in a row whose time stamps have jumped are a new count


class CaptureClock:
    """Turns time stamps into times on the monotonic clock.

    A picture cannot arrive before it was taken, so the smallest difference between arrival and time stamp seen so far
    is the best estimate of their offset. Where a link lags, the difference grows, and with it the age of the pictures.
    What the fastest picture took on its way is not known, and not counted.
    """

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS)
        self._last: tuple[int, int] | None = None  # stamp and arrival
        self._strays = 0

    def captured_ns(self, stamp_ns: int, arrived_ns: int) -> int:
        """Return when the picture with this time stamp was taken; its arrival where the stamp has jumped."""
        if self._last is not None:
            step_ns = stamp_ns - self._last[0]
            if step_ns < -_BACK_NS or step_ns - (arrived_ns - self._last[1]) > _AHEAD_NS:
                self._strays += 1
                if self._strays < _STRAYS:  # some recorders stamp single pictures hours away from the others
                    return arrived_ns
                self._buckets.clear()  # the sender started again
        self._strays = 0
        self._last = stamp_ns, arrived_ns
        difference, bucket = arrived_ns - stamp_ns, arrived_ns // _BUCKET_NS
        if self._buckets and self._buckets[-1][0] == bucket:
            self._buckets[-1] = (bucket, min(difference, self._buckets[-1][1]))
        else:
            self._buckets.append((bucket, difference))
        return stamp_ns + min(least for _, least in self._buckets)
