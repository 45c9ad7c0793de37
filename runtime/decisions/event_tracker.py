"""Following decisions through time: what flickers is no event, what lasts is one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from overflight.runtime.event import Event, EventType

if TYPE_CHECKING:
    from overflight.runtime.decisions.decide import Decision
    from overflight.runtime.records import Glance, Observation

    Sighting = Observation | Glance

CHANGE = 0.1  # a score that has risen by so much since the last message is worth another one
_INTERVALS = 9  # the usual interval between observations is the median of so many
_SLOW = 3.0  # where observations come slowly, a gap is this many usual intervals


@dataclass(frozen=True)
class EventRules:
    """When a label's presence becomes an event.

    It begins when ``hits`` of the last ``window`` observations show it, for at least ``least_s`` seconds, and not
    within ``cool_down_s`` of its last end; it ends when fewer than ``hits`` still do, or after ``gap_s`` without an
    observation (three usual intervals where those are longer: survey stills, a low ``--fps``). Seconds are the source's
    own: position in a recording, Exif time of stills, the clock for a live source. For stills without a time only
    ``hits`` and ``window`` count.
    """

    hits: int = 3
    window: int = 5
    least_s: float = 0.0
    cool_down_s: float = 2.0
    gap_s: float = 5.0


@dataclass
class _Track:
    """One label's recent past."""

    marks: deque[bool]
    first: Sighting | None = None  # the first observation of the present run of marks
    event: Event | None = None  # the last step, while the event lasts
    best: float = 0.0
    ended_ns: int | None = None


@dataclass
class EventTracker:
    """Turns a flight's decisions into events; ``flight`` and a number make their ids.

    The same observations give the same events: nothing here reads a clock.
    """

    rules: EventRules
    flight: str
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _count: int = 0
    _last: Sighting | None = None
    _last_moment_ns: int | None = None
    _intervals: deque[int] = field(default_factory=lambda: deque(maxlen=_INTERVALS))

    def follow(self, observation: Sighting, decision: Decision) -> list[Event]:
        """Take one observation's decision and return what it began, changed or ended."""
        events = self.end() if self._after_gap(observation) else []
        if not (decision.present or self._tracks):
            self._last = observation
            return events
        for label in decision.present:
            if label not in self._tracks:
                self._tracks[label] = _Track(deque(maxlen=self.rules.window))
        for label, track in list(self._tracks.items()):
            events += self._step(label, track, observation, decision)
            if not any(track.marks) and not track.event and not self._cools_down(track, observation):
                del self._tracks[label]
        self._last = observation
        return events

    def end(self) -> list[Event]:
        """End everything that lasts, at the last observation: the flight is over, or a gap followed it."""
        if self._last is None:
            return []
        lasting = [(label, track) for label, track in self._tracks.items() if track.event]
        ended = [self._record("end", label, track, self._last) for label, track in lasting]
        self._tracks.clear()
        return ended

    def _after_gap(self, observation: Sighting) -> bool:
        """Whether so much time passed since the last observation that nothing is known about it."""
        now_ns, before_ns = observation.moment_ns, self._last_moment_ns
        if now_ns is None:
            return False
        self._last_moment_ns = now_ns
        if before_ns is None:
            return False
        passed_ns = abs(now_ns - before_ns)  # the stills of a folder need not be in order of time
        gap = bool(self._intervals) and passed_ns > self.rules.gap_s * 1e9
        gap = gap and passed_ns > _SLOW * median(self._intervals)
        self._intervals.append(passed_ns)
        return gap

    def _step(self, label: str, track: _Track, observation: Sighting, decision: Decision) -> list[Event]:
        score = (decision.still if track.event else decision.present).get(label)
        track.marks.append(score is not None)
        if score is not None:
            track.best = max(track.best, score)
            track.first = track.first or observation
        seen = sum(track.marks)
        if track.event:
            if seen < self.rules.hits:
                return [self._finish(label, track, observation)]
            risen = track.best - track.event.score >= CHANGE
            return [self._record("change", label, track, observation)] if risen else []
        if not seen:
            track.first, track.best = None, 0.0
        elif seen >= self.rules.hits and self._lasts(track, observation) and not self._cools_down(track, observation):
            self._count += 1
            return [self._record("begin", label, track, observation, decision.groups.get(label))]
        return []

    def _lasts(self, track: _Track, observation: Sighting) -> bool:
        lasted_ns = _passed_ns(track.first, observation)
        return lasted_ns is None or lasted_ns >= self.rules.least_s * 1e9

    def _cools_down(self, track: _Track, observation: Sighting) -> bool:
        now_ns = observation.moment_ns
        if track.ended_ns is None or now_ns is None:
            return False
        return 0 <= now_ns - track.ended_ns < self.rules.cool_down_s * 1e9

    def _finish(self, label: str, track: _Track, observation: Sighting) -> Event:
        event = self._record("end", label, track, observation)
        track.event, track.first, track.best = None, None, 0.0
        track.marks.clear()
        track.ended_ns = observation.moment_ns
        return event

    def _record(
        self, kind: EventType, label: str, track: _Track, observation: Sighting, group: str | None = None
    ) -> Event:
        previous = track.event
        first = track.first or observation
        track.event = Event(
            id=previous.id if previous else f"{self.flight}-{self._count}",
            type=kind,
            label=label,
            started_utc_ns=previous.started_utc_ns if previous else first.utc_ns,
            utc_ns=observation.utc_ns,
            frame=observation.frame,
            score=track.best,
            sequence=previous.sequence + 1 if previous else 0,
            flight=self.flight,
            group=previous.group if previous else group,
            pose=observation.pose,
            place=observation.place,
            bank=observation.bank,
            engine=observation.engine,
            name=observation.name,
            started_frame=previous.started_frame if previous else first.frame,
            started_media_ns=previous.started_media_ns if previous else first.media_ns,
            media_ns=observation.media_ns,
            lasted_ns=_passed_ns(first, observation),
        )
        return track.event


def _passed_ns(first: Sighting | None, last: Sighting) -> int | None:
    """Return the time between two observations by the source's own clock, None where it does not tell."""
    if first is None or first.moment_ns is None or last.moment_ns is None:
        return None
    return last.moment_ns - first.moment_ns
