"""Incidents: one thing seen twice is one."""

from __future__ import annotations

import msgspec

from overflight.runtime.decisions.incident import Incidents
from overflight.runtime.event import Event
from overflight.runtime.geodesy import offset
from overflight.runtime.pose.footprint import Place

S = 1_000_000_000


def seen(name: str, north_m: float, at_s: float, label: str = "fire", error_m: float = 5.0, **more: object) -> Event:
    lat, lon = offset(47.0, 8.0, north_m, 0.0)
    event = Event(name, "begin", label, 0, round(at_s * S), 0, 0.9, place=Place(lat, lon, error_m))
    return msgspec.structs.replace(event, **more)


def test_a_second_pass_over_the_same_fire_is_the_same_incident() -> None:
    """Within 30 m and 15 minutes of its last sighting, the same label joins; farther, later or another does not."""
    incidents = Incidents(30.0, 900.0)
    joined = [
        incidents.join(event).incident
        for event in (
            seen("f-1", 0, 0),
            seen("f-2", 25, 600),
            seen("f-3", 35, 601),
            seen("f-4", 0, 602, label="person"),
            seen("f-5", 0, 1500),
            seen("f-6", 0, 2401),
        )
    ]
    assert joined == ["f-1", "f-1", "f-3", "f-4", "f-1", "f-6"]


def test_an_event_keeps_its_incident_to_the_end() -> None:
    """Also when the aircraft has flown on and the place has moved, or is not known any more."""
    incidents = Incidents(30.0)
    incidents.join(seen("f-1", 0, 0))
    moved = incidents.join(seen("f-1", 200, 5, type="change", sequence=1))
    lost = incidents.join(seen("f-1", 0, 9, type="end", sequence=2, place=None))
    assert (moved.incident, lost.incident) == ("f-1", "f-1")


def test_the_best_located_sighting_says_where_it_is() -> None:
    """A vague first sighting gives way to a sharp one, against which later ones are held."""
    incidents = Incidents(30.0)
    incidents.join(seen("f-1", 0, 0, error_m=40.0))
    incidents.join(seen("f-2", 28, 1, error_m=3.0))
    assert incidents.join(seen("f-3", 55, 2)).incident == "f-1"


def test_what_is_not_located_or_stale_is_not_joined() -> None:
    """No place, or one made from a stale pose, makes no incident and joins none."""
    incidents = Incidents()
    incidents.join(seen("f-1", 0, 0))
    assert incidents.join(seen("f-2", 0, 1, place=None)).incident is None
    assert incidents.join(seen("f-3", 0, 1, place=Place(47.0, 8.0, 5.0, stale=True))).incident is None


def test_of_two_incidents_the_nearer_is_taken() -> None:
    """Between two fires 40 m apart, each new sighting goes to the closer."""
    incidents = Incidents(30.0)
    incidents.join(seen("f-1", 0, 0))
    incidents.join(seen("f-2", 40, 0))
    assert incidents.join(seen("f-3", 15, 1)).incident == "f-1"
    assert incidents.join(seen("f-4", 25, 1)).incident == "f-2"
