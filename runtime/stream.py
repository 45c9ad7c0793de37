"""The stream: frames in, observations out. This is the loop that flies."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from overflight.runtime.errors import EngineError
from overflight.runtime.filters.pace import Pace, Pacer
from overflight.runtime.filters.quality import ContinuityCheck, QualityCheck
from overflight.runtime.filters.similarity import SimilarityFilter
from overflight.runtime.sources import open_source
from overflight.runtime.sources.capture import Capture
from overflight.runtime.sources.testcard import TestCard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.runtime.frame import Frame
    from overflight.runtime.observe import FrameResult, Observer
    from overflight.runtime.sources import Source


class Stream:
    """One source seen by one observer.

    A live source is read in its own thread, its newest frame wins, and it is reopened for ever; any other source gives
    every frame in order. ``dropped`` counts all that was not observed, by reason, since the start.
    """

    def __init__(self, where: str, observer: Observer, pace: Pace | None = None) -> None:
        self._observer = observer
        self.source: Source = open_source(where)
        self.dropped: Counter[str] = Counter()
        self._where = where
        self._judge, self._clerk = QualityCheck(live=self.source.live), ContinuityCheck()
        self._pacer = Pacer(pace := pace or Pace())
        self.gate = None if pace.similar is None else SimilarityFilter(pace.similar)
        self._capture: Capture | None = None
        self.stopped = False
        self.notice: Callable[[str | None], None] = lambda trouble: None  # told what is wrong while nothing arrives

    def observations(self) -> Iterator[FrameResult]:
        """Yield what each frame was judged to show.

        The loop stays here, in one screen. Nothing ends it but the source's end, ``stop``, or a recording that cannot
        be read further (SourceError).
        """
        lost: Counter[str] = Counter()  # since the previous observation
        for arrived in self._frames():
            if self.stopped:
                break
            lost.update(self._lost_in_capture())
            if arrived is None:
                self.notice(self.trouble)
                continue
            frame = self._pacer.date(arrived)
            lost.update(frame.dropped)
            lost.update(self._clerk.notice(frame))
            if passed := self._pacer.passes(frame):
                lost[passed] += 1
                continue
            pixels = self._observer.prepare(frame)
            if fault := self._judge.judge(pixels):
                lost[fault] += 1
                continue
            if self.gate is not None and self.gate.skips(pixels):
                lost["similar"] += 1
                continue
            try:
                sight = self._observer.observe(frame, lost)
            except EngineError as error:
                lost["engine-failed"] += 1
                self.notice(str(error))
                continue
            self.dropped.update(lost)
            lost.clear()
            self.notice(None)
            if self.gate is not None:
                self.gate.judged(sight.observation.label)
            yield sight
        self.dropped.update(lost)

    def stop(self) -> None:
        """End after the frame in hand; may be called from a signal handler or another thread."""
        self.stopped = True

    def close(self) -> None:
        """Let the source go."""
        if self._capture is not None:
            self._capture.close()
        else:
            self.source.close()

    @property
    def trouble(self) -> str | None:
        """What keeps a live source from delivering, or None."""
        return self._capture.trouble if self._capture is not None else None

    def _frames(self) -> Iterator[Frame | None]:
        if not self.source.live:
            return self.source.frames()
        self._capture = Capture(self.source, self._reopen)
        return self._capture.frames()

    def _reopen(self) -> Source:
        """Open a failed source by its name, for a device may have got another number; a test card goes on."""
        return self.source if isinstance(self.source, TestCard) else open_source(self._where)

    def _lost_in_capture(self) -> Counter[str]:
        return self._capture.take_dropped() if self._capture is not None else Counter()
