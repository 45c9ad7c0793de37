"""The layers of a flight's map: footprints, observations, the track and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal

from overflight.runtime.geofiles.geometry import Geometry, line, point, polygon

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overflight.runtime.event import Event
    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.records import Observation

Value = str | int | float | bool | None
LayerName = Literal[
    "footprints", "observations", "track", "events", "hits", "covered", "gaps", "cells", "tiles", "changes"
]


@dataclass(frozen=True)
class Feature:
    """A geometry and what is known of it; ``None`` stands for unknown."""

    geometry: Geometry
    properties: dict[str, Value]


@dataclass
class Layer:
    """Features of one kind, all with the same property names."""

    name: LayerName
    features: list[Feature] = field(default_factory=list)


def layers_of(observations: Iterable[Observation], events: Iterable[Event]) -> tuple[list[Layer], int]:
    """Return the layers that have a feature, and how many observations have no position at all."""
    footprints, points, track, marks = (Layer(name) for name in ("footprints", "observations", "track", "events"))
    path: list[tuple[float, float]] = []
    times: list[int] = []
    lost = 0
    for seen in observations:
        where = _where(seen.pose, seen.place)
        if where is None:
            lost += 1
            continue
        properties = _of_observation(seen)
        points.features.append(Feature(point(*where), properties))
        if seen.place is not None and seen.place.footprint:
            footprints.features.append(Feature(polygon(seen.place.footprint), properties))
        if seen.pose is not None and seen.pose.quality != "stale":
            path.append((seen.pose.lon_deg, seen.pose.lat_deg))
            times.append(seen.pose.utc_ns or seen.captured_utc_ns or 0)
    if len(path) > 1:
        ends: dict[str, Value] = {"began": iso(times[0]), "ended": iso(times[-1]), "positions": len(path)}
        track.features.append(Feature(line(path), ends))
    for event in _latest(events):
        where = _where(event.pose, event.place)
        if where is not None:
            marks.features.append(Feature(point(*where), _of_event(event)))
    return [layer for layer in (footprints, points, track, marks) if layer.features], lost


def iso(utc_ns: int | None) -> str | None:
    """Write a time as ISO 8601 in UTC with milliseconds; None for 0 or None, the unknown."""
    if not utc_ns:
        return None
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=utc_ns // 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _where(pose: Pose | None, place: Place | None) -> tuple[float, float] | None:
    known = place or pose
    return None if known is None else (known.lon_deg, known.lat_deg)


def _of_observation(seen: Observation) -> dict[str, Value]:
    best = seen.scores[0] if seen.scores else None
    return {
        "frame": seen.frame,
        "utc": iso(seen.utc_ns),
        "label": seen.label,
        "best": best.label if best else None,
        "score": best.score if best else None,
        "cosine": best.cosine if best else None,
        "age_ms": seen.age_ns / 1e6,
        "name": seen.name,
        **_of_place(seen.pose, seen.place),
        "bank": seen.bank,
        "engine": seen.engine,
    }


def _of_event(event: Event) -> dict[str, Value]:
    return {
        "id": event.id,
        "state": event.type,
        "label": event.label,
        "score": event.score,
        "began": iso(event.started_utc_ns),
        "utc": iso(event.utc_ns),
        "frame": event.frame,
        "incident": event.incident,
        **_of_place(event.pose, event.place),
        "bank": event.bank,
        "engine": event.engine,
    }


def _of_place(pose: Pose | None, place: Place | None) -> dict[str, Value]:
    return {
        "located": "ground" if place is not None else "camera",
        "error_m": place.error_m if place else None,
        "gsd_m": place.gsd_m if place else None,
        "clipped": place.clipped if place else None,
        "height_m": pose.height_m if pose else None,
        "h_acc_m": pose.h_acc_m if pose else None,
        "pose": pose.quality if pose else None,
    }


def _latest(events: Iterable[Event]) -> Iterable[Event]:
    """Keep the last step of each event; its place is the best known one."""
    latest: dict[str, Event] = {}
    for event in events:
        known = latest.get(event.id)
        if known is None or event.sequence >= known.sequence:
            latest[event.id] = event
    return latest.values()
