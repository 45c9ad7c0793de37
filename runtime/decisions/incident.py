"""Incidents: the same label seen near the same place soon again is one thing, across passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.geodesy import distance_m

if TYPE_CHECKING:
    from overflight.runtime.event import Event
    from overflight.runtime.pose.footprint import Place

RADIUS_M = 30.0
WITHIN_S = 900.0


@dataclass
class _Incident:
    id: str
    label: str
    place: Place
    seen_ns: int | None


class Incidents:
    """Joins events of the same label within ``radius_m`` and ``within_s`` of the incident's last sighting.

    An incident is named after the first event it was seen in, and lies where it was located best.
    """

    def __init__(self, radius_m: float = RADIUS_M, within_s: float = WITHIN_S) -> None:
        self._radius_m = radius_m
        self._within_ns = round(within_s * 1e9)
        self._incidents: list[_Incident] = []
        self._of_event: dict[str, _Incident] = {}

    def join(self, event: Event) -> Event:
        """Return the event with its incident's id; an event without a trusted place is returned unchanged.

        An event keeps the incident it began with. Of two incidents within reach the nearer one is taken. Events of a
        source that tells no time are joined by place alone.
        """
        incident = self._of_event.get(event.id)
        place = event.place
        if incident is None and place is not None and not place.stale:
            incident = self._nearest(event, place)
            if incident is None:
                incident = _Incident(event.id, event.label, place, _time_ns(event))
                self._incidents.append(incident)
            self._of_event[event.id] = incident
        if incident is None:
            return event
        incident.seen_ns = max(filter(None, (incident.seen_ns, _time_ns(event))), default=None)
        if place is not None and not place.stale and place.error_m < incident.place.error_m:
            incident.place = place
        if event.type == "end":
            self._of_event.pop(event.id, None)
        return msgspec.structs.replace(event, incident=incident.id)

    def _nearest(self, event: Event, place: Place) -> _Incident | None:
        here = place.lat_deg, place.lon_deg
        now_ns = _time_ns(event)
        if now_ns is not None:
            self._incidents = [i for i in self._incidents if now_ns - (i.seen_ns or now_ns) <= self._within_ns]
        near = [
            (distance_m(here, (incident.place.lat_deg, incident.place.lon_deg)), incident)
            for incident in self._incidents
            if incident.label == event.label
        ]
        near = [pair for pair in near if pair[0] <= self._radius_m]
        return min(near, key=lambda pair: pair[0])[1] if near else None


def _time_ns(event: Event) -> int | None:
    """Return the event's time by the source's own clock: UTC, else the position in the recording."""
    return event.media_ns if event.utc_ns is None else event.utc_ns
