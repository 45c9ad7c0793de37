"""The token bucket: how many bytes a second a link may carry."""

from __future__ import annotations

BURST_S = 2.0  # an idle link saves up this many seconds of its rate
LONGEST_S = 4.0  # a message that would hold the link longer than this is not for this link


class Bucket:
    """Bytes per second, saved up while idle. A message larger than the savings may go when they are full, on credit."""

    def __init__(self, rate_bps: float | None, now_s: float) -> None:
        self.rate_bps = rate_bps
        self._saved = 0.0 if rate_bps is None else rate_bps * BURST_S
        self._at_s = now_s

    def wait_s(self, size: int, now_s: float) -> float:
        """Return how long a message of ``size`` bytes must still wait; 0 when it may go."""
        if self.rate_bps is None:
            return 0.0
        self._earn(now_s)
        needed = min(float(size), self.rate_bps * BURST_S)
        return max(0.0, (needed - self._saved) / self.rate_bps)

    def spend(self, size: int, now_s: float) -> None:
        """Take the bytes of a message that goes."""
        if self.rate_bps is not None:
            self._earn(now_s)
            self._saved -= size

    def too_large(self, size: int) -> bool:
        """Say whether a message would hold the link for more than ``LONGEST_S``."""
        return self.rate_bps is not None and size > self.rate_bps * LONGEST_S

    def _earn(self, now_s: float) -> None:
        if self.rate_bps is not None:
            self._saved = min(self.rate_bps * BURST_S, self._saved + (now_s - self._at_s) * self.rate_bps)
        self._at_s = now_s
