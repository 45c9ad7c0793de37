"""The events of a flight, each from its begin to its end, placed on the flight's own axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.event import Event
from overflight.runtime.flight.directory import EVENTS, JOURNAL
from overflight.runtime.flight.journal_reader import read_events
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.pose.footprint import Place


@dataclass(frozen=True)
class EventSummary:
    """One event. ``first`` and ``last`` are rows of the flight, ``lasted`` its length on the flight's axis.

    ``ended`` is False for an event that was still going on when the flight ended without a record of its end.
    """

    label: str
    score: float
    first: int
    last: int
    lasted: float
    ended: bool
    place: Place | None


def summarise_events(
    flight: Path, frames: NDArray[np.int64], times: NDArray[np.float64], *, seconds: bool
) -> list[EventSummary]:
    """Join the steps of each event, in the order in which they began; ``seconds`` says that the axis counts time."""
    if not len(frames):
        return []
    steps: dict[str, list[Event]] = {}
    for event in _read(flight):
        steps.setdefault(event.id, []).append(event)
    return [_join(found, frames, times, seconds=seconds) for found in steps.values()]


def _join(steps: list[Event], frames: NDArray[np.int64], times: NDArray[np.float64], *, seconds: bool) -> EventSummary:
    began, latest = steps[0], steps[-1]
    ended = latest.type == "end"
    started = began.frame if began.started_frame is None else began.started_frame
    first = _row(frames, started)
    last = max(first, _row(frames, latest.frame) if ended else len(frames) - 1)
    lasted = float(times[last] - times[first])
    if seconds and ended and latest.lasted_ns is not None:
        lasted = latest.lasted_ns / 1e9
    if not seconds:
        lasted = last - first + (not ended)
    place = next((step.place for step in steps if step.place is not None), None)
    return EventSummary(began.label, max(step.score for step in steps), first, last, lasted, ended, place)


def _row(frames: NDArray[np.int64], frame: int) -> int:
    return min(int(np.searchsorted(frames, frame)), len(frames) - 1)


def _read(flight: Path) -> Iterable[Event]:
    if (flight / JOURNAL).exists():
        return list(read_events(flight / JOURNAL))
    if not (flight / EVENTS).exists():
        return []
    found = []
    for line in (flight / EVENTS).read_bytes().splitlines():
        try:
            found.append(decode_json(line, Event))
        except msgspec.DecodeError:  # a torn last line
            continue
    return found
