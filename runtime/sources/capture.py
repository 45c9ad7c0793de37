"""Capture: a live source read in its own thread; only the newest frame is kept."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from overflight.runtime.errors import OverflightError
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.runtime.frame import Frame
    from overflight.runtime.sources.source import Source

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 1.5  # a camera that comes back must not wait for us
LATE_S = 2.0  # a gap in a stream that continues by itself
STALL_S = 10.0  # a reader without a frame, a packet or an error for so long hangs in its driver


class Capture:
    """The newest frame of a live source. A source that fails is opened again, however often, after a growing pause.

    ``reopen`` opens the source again. A reader that hangs in its driver cannot be stopped from Python: it is abandoned
    and a new one is started.
    """

    def __init__(self, source: Source, reopen: Callable[[], Source]) -> None:
        self._reopen = reopen
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
        self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            self._source.close()

    def _start(self, source: Source | None) -> None:
        self._reader += 1
        self._flows = False
        self._heard_ns = time.monotonic_ns()
        self._thread = threading.Thread(
            target=self._read, args=(source, self._reader), name=f"capture-{self._reader}", daemon=True
        )
        self._thread.start()

    def _watch(self) -> None:
        """Tell a reader that hangs from a stream whose packets arrive and show no picture yet."""
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

    def _read(self, source: Source | None, reader: int) -> None:
        patience_s = BACKOFF_FIRST_S
        while not self._closed.is_set() and reader == self._reader:
            try:
                source = source or self._reopen()
                self._source = source
                for frame in source.frames():
                    if self._closed.is_set() or reader != self._reader:
                        break
                    self._put(frame)
                    patience_s = BACKOFF_FIRST_S
                else:
                    if source.count is not None:  # a test card of a given length has an end; a camera has none
                        self._end()
                        return
            except Exception as error:
                known = isinstance(error, OverflightError)
                self.trouble = str(error) if known else f"{source.name if source else 'source'}: {error!r}"
                self._count("reconnect")
            if source is not None:
                source.close()
            source = None
            self._flows = False
            self._heard_ns = time.monotonic_ns()
            self._closed.wait(patience_s * random.uniform(0.8, 1.2))  # noqa: S311 - so that many readers do not connect at once
            patience_s = min(patience_s * 2, BACKOFF_LAST_S)

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
