"""The stream: the loop that turns a source's frames into observations."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from overflight.runtime.errors import EngineError
from overflight.runtime.filters.pace import Pace, Pacer
from overflight.runtime.filters.quality import ContinuityCheck, QualityCheck
from overflight.runtime.filters.similarity import SimilarityFilter
from overflight.runtime.observe import nowhere
from overflight.runtime.sources import open_source
from overflight.runtime.sources.capture import Capture
from overflight.runtime.sources.source import Lossy
from overflight.runtime.sources.testcard import TestCard
from overflight.runtime.worker import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.runtime.frame import Frame
    from overflight.runtime.observe import FrameResult, Observer
    from overflight.runtime.pose.geotag import Location
    from overflight.runtime.sources import Source


class Stream:
    """One source evaluated by one observer.

    A live source is read in its own thread, only its newest frame is kept, and it is reopened until the stream is
    stopped; any other source yields every frame in order. ``dropped`` counts the frames that were lost, by reason,
    since the start, ``skipped`` those that the user asked to skip. ``locate`` returns a frame's pose and place.
    ``notice`` receives the reason while no observation arrives, and None when they arrive again.
    """

    def __init__(
        self,
        where: str,
        observer: Observer,
        pace: Pace | None = None,
        *,
        locate: Callable[[Frame], Location] = nowhere,
        notice: Callable[[str | None], None] = lambda trouble: None,
    ) -> None:
        self._observer = observer
        self._locate, self._notice = locate, notice
        self.source: Source = open_source(where)
        self.dropped: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._where = where
        self._quality = QualityCheck(live=self.source.live, decoder_reports=isinstance(self.source, Lossy))
        self._continuity = ContinuityCheck()
        self._pacer = Pacer(pace := pace or Pace())
        self.similarity = None if pace.similar is None else SimilarityFilter(pace.similar)
        self._capture: Capture | None = None
        self.faults = Faults("capture")
        self.stopped = False

    def results(self) -> Iterator[FrameResult]:
        """Yield the result of each frame that was evaluated.

        The whole loop is here, on one screen. It ends at the source's end, after ``stop``, or with SourceError when a
        recording cannot be read further.
        """
        lost, skipped = Counter[str](), Counter[str]()  # since the previous observation
        for arrived in self._frames():
            if self.stopped:
                break
            lost.update(self._lost_in_capture())
            if arrived is None:
                self._notice(self.trouble)
                continue
            frame = self._pacer.date(arrived)
            lost.update(frame.dropped)
            lost.update(self._continuity.changes(frame))
            if passed := self._pacer.passes(frame):
                skipped[passed] += 1
                continue
            prepared = self._observer.prepare(frame)
            if fault := self._quality.fault(prepared.pixels):
                lost[fault] += 1
                continue
            if self.similarity is not None and self.similarity.skips(prepared.pixels):
                skipped["similar"] += 1
                continue
            try:
                result = self._observer.observe(prepared, lost, self._locate, skipped=skipped)
            except EngineError as error:
                lost["engine-failed"] += 1
                self._notice(str(error))
                continue
            self._count(lost, skipped)
            self._notice(None)
            if self.similarity is not None:
                self.similarity.evaluated(result.observation.label)
            yield result
        lost.update(self._lost_in_capture())
        self._count(lost, skipped)

    def _count(self, lost: Counter[str], skipped: Counter[str]) -> None:
        """Add what was lost and skipped to the totals, and begin again."""
        self.dropped.update(lost)
        self.skipped.update(skipped)
        lost.clear()
        skipped.clear()

    def stop(self) -> None:
        """End after the current frame; may be called from a signal handler or another thread."""
        self.stopped = True

    def slow_down(self, every: int) -> None:
        """Evaluate only one frame in ``every``; may be called from another thread."""
        self._pacer.slow_down(every)

    def close(self) -> None:
        """Close the source."""
        if self._capture is not None:
            self._capture.close()
        else:
            self.source.close()

    @property
    def trouble(self) -> str | None:
        """Why a live source delivers no frames, or None."""
        return self._capture.trouble if self._capture is not None else None

    @property
    def notes(self) -> list[str]:
        """What was unusual about the source, one line each."""
        notes: list[str] = getattr(self.source, "notes", [])
        return notes

    def _frames(self) -> Iterator[Frame | None]:
        if not self.source.live:
            return self.source.frames()
        self._capture = Capture(self.source, self._reopen, self.faults)
        return self._capture.frames()

    def _reopen(self) -> Source:
        """Open a failed source by its name, because a device's number may have changed; a test card continues."""
        return self.source if isinstance(self.source, TestCard) else open_source(self._where)

    def _lost_in_capture(self) -> Counter[str]:
        if self._capture is not None:
            return self._capture.take_dropped()
        return self.source.take_dropped() if isinstance(self.source, Lossy) else Counter()
