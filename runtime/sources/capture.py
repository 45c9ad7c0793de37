"""Capture: a live source read in its own thread; only the newest frame is kept."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overflight.runtime.errors import OverflightError
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.pipeline import Pipeline
from overflight.runtime.worker import Faults, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.runtime.frame import Frame
    from overflight.runtime.sources.source import Source

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 1.5  # a camera that comes back must not wait for us
LATE_S = 2.0  # a gap in a stream that continues by itself
STALL_S = 10.0  # a reader without a frame, a packet or an error for so long hangs in its driver


@dataclass
class _Reading:
    """What one reading thread keeps between two attempts."""

    source: Source | None  # opened by whoever started the thread
    number: int
    patience_s: float = BACKOFF_FIRST_S


class Capture:
    """The newest frame of a live source. A source that fails is opened again, however often, after a growing pause.

    ``reopen`` opens the source again. A reader that hangs in its driver cannot be stopped from Python: it is abandoned
    and a new one is started. ``faults`` counts the errors that no source is known to raise.
    """

    def __init__(self, source: Source, reopen: Callable[[], Source], faults: Faults | None = None) -> None:
        self._reopen = reopen
        self.faults = faults or Faults("capture")
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._dropped: Counter[str] = Counter()
        self._closed = threading.Event()
        self._ended = False
        self._reader = 0
        self._flows = False
        self._last, self._shift = -1, 0
        self._source = source
        self._heard_ns = time.monotonic_ns()
        self.trouble: str | None = None
        self._start(source)

    def frames(self) -> Iterator[Frame | None]:
        """Yield the newest frame as soon as there is one not yet seen; None each second without."""
        while not self._closed.is_set():
            with self._arrived:
                if self._newest is None and not self._ended:
                    self._arrived.wait(1.0)
                frame, self._newest = self._newest, None
                ended = self._ended
            if frame is None and ended:
                return
            if frame is None:
                self._watch()
            yield frame

    def take_dropped(self) -> Counter[str]:
        """Return what was lost since the last call, by reason."""
        with self._arrived:
            dropped, self._dropped = self._dropped, Counter()
        if isinstance(self._source, LiveVideo):
            dropped.update(self._source.take_dropped())
        return dropped

    def close(self) -> None:
        """Stop reading; a reader that hangs is abandoned."""
        self._closed.set()
        with self._arrived:
            self._arrived.notify_all()
        if self._worker.close(2.0):
            self._source.close()

    def _start(self, source: Source | None) -> None:
        self._reader += 1
        self._flows = False
        self._heard_ns = time.monotonic_ns()
        reading = _Reading(source, self._reader)
        self._worker = Worker(
            f"capture-{self._reader}", lambda: self._read(reading), faults=self.faults, longest_retry_s=BACKOFF_LAST_S
        )
        self._worker.start()

    def _watch(self) -> None:
        """Replace a reader that hangs, not one whose stream delivers packets and no picture yet."""
        now_ns = time.monotonic_ns()
        silent_s = (now_ns - self._heard_ns) / 1e9
        if isinstance(self._source, LiveVideo) and now_ns - self._source.heard_ns < LATE_S * 1e9:
            if silent_s > LATE_S:
                waiting = f"no whole picture for {silent_s:.0f} s: waiting for the stream's next keyframe"
                self.trouble = self._source.trouble or waiting
        elif isinstance(self._source, LiveVideo | Pipeline) and self._source.listens:
            self.trouble = f"{self._source.name}: waiting for a sender"
        elif silent_s > STALL_S:
            self._replace_reader()

    def _replace_reader(self) -> None:
        self._count("stalled")
        self.trouble = f"no frame and no error for {STALL_S:g} s: the reader hangs, starting another"
        self._start(None)

    def _read(self, reading: _Reading) -> float | None:
        """Read a source until it fails; return the seconds until it is opened again, None when there is no more."""
        if self._closed.is_set() or reading.number != self._reader:
            return None
        source, reading.source = reading.source, None
        try:
            source = source or self._reopen()
            self._source = source
            for frame in source.frames():
                if self._closed.is_set() or reading.number != self._reader:
                    return None
                self._put(frame)
                reading.patience_s = BACKOFF_FIRST_S
            if source.count is not None:  # a test card of a given length has an end; a camera has none
                self._end()
                return None
        except Exception as error:
            known = isinstance(error, OverflightError)
            self.trouble = str(error) if known else f"{source.name if source else 'source'}: {error!r}"
            self._count("reconnect")
            if not known:
                raise
        finally:
            self._flows = False
            self._heard_ns = time.monotonic_ns()
            if source is not None:
                source.close()
        pause_s = reading.patience_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that many readers do not connect at once
        reading.patience_s = min(reading.patience_s * 2, BACKOFF_LAST_S)
        return pause_s

    def _put(self, frame: Frame) -> None:
        with self._arrived:
            frame = self._numbered(frame)
            if self._newest is not None:
                self._dropped["newer-frame"] += 1
            self._newest = frame
            now_ns = time.monotonic_ns()
            if self._flows and now_ns - self._heard_ns > LATE_S * 1e9:
                self._dropped["stalled"] += 1
            self._flows, self._heard_ns = True, now_ns
            self.trouble = None
            self.faults.clear()
            self._arrived.notify()

    def _numbered(self, frame: Frame) -> Frame:
        """Go on counting where a source that was opened again begins anew: in one flight a number means one frame."""
        if frame.number + self._shift <= self._last:
            self._shift = self._last + 1 - frame.number
        self._last = frame.number + self._shift
        return replace(frame, number=self._last) if self._shift else frame

    def _count(self, reason: str) -> None:
        with self._arrived:
            self._dropped[reason] += 1

    def _end(self) -> None:
        with self._arrived:
            self._ended = True
            self._arrived.notify()
