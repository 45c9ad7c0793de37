"""Following decisions through time: what flickers is no event, what lasts is one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overflight.runtime.event import Event, EventType

if TYPE_CHECKING:
    from overflight.runtime.decisions.decide import Decision
    from overflight.runtime.records import Observation

CHANGE = 0.1  # a score that has risen by so much since it was last told is news


@dataclass(frozen=True)
class EventRules:
    """When a label's presence becomes an event.

    It begins when ``hits`` of the last ``window`` observations show it, for at least ``least_s`` seconds, and not
    within ``cool_down_s`` of its last end; it ends when fewer than ``hits`` still do, or after ``gap_s`` without any
    look.
    """

    hits: int = 3
    window: int = 5
    least_s: float = 0.0
    cool_down_s: float = 2.0
    gap_s: float = 5.0


@dataclass
class _Track:
    """One label's recent past. Times are the capture times of frames, monotonic."""

    marks: deque[bool]
    first: Observation | None = None  # the first look of the present run of marks
    event: Event | None = None  # what was last told, while the event lasts
    best: float = 0.0
    quiet_until_ns: int = 0


@dataclass
class EventTracker:
    """Turns a flight's verdicts into events; ``flight`` and a number make their ids.

    ``epoch_utc_ns`` stands for the start of a recording that does not tell its time.
    """

    rules: EventRules
    flight: str
    epoch_utc_ns: int
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _count: int = 0
    _last: Observation | None = None

    def follow(self, observation: Observation, verdict: Decision) -> list[Event]:
        """Take one observation's verdict and return what it began, changed or ended."""
        events = []
        if self._last and observation.captured_ns - self._last.captured_ns > self.rules.gap_s * 1e9:
            events += self.end()
        for label in verdict.present:
            if label not in self._tracks:
                self._tracks[label] = _Track(deque(maxlen=self.rules.window))
        for label, track in list(self._tracks.items()):
            events += self._step(label, track, observation, verdict)
            if not any(track.marks) and not track.event and observation.captured_ns >= track.quiet_until_ns:
                del self._tracks[label]
        self._last = observation
        return events

    def end(self) -> list[Event]:
        """End everything that lasts, at the last observation: the flight is over, or nothing was seen for long."""
        if self._last is None:
            return []
        lasting = [(label, track) for label, track in self._tracks.items() if track.event]
        ended = [self._tell("end", label, track, self._last) for label, track in lasting]
        self._tracks.clear()
        return ended

    def _step(self, label: str, track: _Track, observation: Observation, verdict: Decision) -> list[Event]:
        score = (verdict.still if track.event else verdict.present).get(label)
        track.marks.append(score is not None)
        if score is not None:
            track.best = max(track.best, score)
            track.first = track.first or observation
        seen = sum(track.marks)
        if track.event:
            if seen < self.rules.hits:
                return [self._finish(label, track, observation)]
            risen = track.best - track.event.score >= CHANGE
            return [self._tell("change", label, track, observation)] if risen else []
        if not seen:
            track.first, track.best = None, 0.0
        elif seen >= self.rules.hits and self._lasts(track, observation):
            self._count += 1
            return [self._tell("begin", label, track, observation)]
        return []

    def _lasts(self, track: _Track, observation: Observation) -> bool:
        lasted_ns = observation.captured_ns - (track.first or observation).captured_ns
        return observation.captured_ns >= track.quiet_until_ns and lasted_ns >= self.rules.least_s * 1e9

    def _finish(self, label: str, track: _Track, observation: Observation) -> Event:
        event = self._tell("end", label, track, observation)
        track.event, track.first, track.best = None, None, 0.0
        track.marks.clear()
        track.quiet_until_ns = observation.captured_ns + int(self.rules.cool_down_s * 1e9)
        return event

    def _tell(self, kind: EventType, label: str, track: _Track, observation: Observation) -> Event:
        previous = track.event
        track.event = Event(
            id=previous.id if previous else f"{self.flight}-{self._count}",
            type=kind,
            label=label,
            started_utc_ns=previous.started_utc_ns if previous else self._utc_ns(track.first or observation),
            utc_ns=self._utc_ns(observation),
            frame=observation.frame,
            score=track.best,
            sequence=previous.sequence + 1 if previous else 0,
            flight=self.flight,
            pose=observation.pose,
            place=observation.place,
            bank=observation.bank,
            engine=observation.engine,
            name=observation.name,
        )
        return track.event

    def _utc_ns(self, observation: Observation) -> int:
        if observation.captured_utc_ns is not None:
            return observation.captured_utc_ns
        return self.epoch_utc_ns + (observation.media_ns or 0)
