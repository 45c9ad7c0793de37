"""Maps without any network: a flight's track, footprints and events, and the places of what a search found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.runtime.geodesy import beside
from overflight.station.page import tag

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from overflight.station.summary import Summary

_M_PER_DEG = 111_320.0
_FOOTPRINTS = 240  # more overlap so much that nothing is seen
_TRACK_POINTS = 2000
_SIZE = 1000
_MARGIN = 0.06

Point = tuple[float, float]


def draw_map(summary: Summary, colours: dict[str | None, str]) -> Element | None:
    """Draw track, footprints and numbered events, north up; None where no frame has a position."""
    track = [(pose.lon_deg, pose.lat_deg) for pose in summary.poses if pose is not None]
    places = [(row, place) for row, place in enumerate(summary.places) if place is not None]
    points = track + [(place.lon_deg, place.lat_deg) for _, place in places]
    points += [corner for _, place in places for corner in place.footprint]
    if not points:
        return None
    frame = _Frame(points)
    parts = [
        tag(
            "polygon",
            tag("title", summary.answers[row] or "unknown"),
            points=frame.path(place.footprint),
            fill=colours.get(summary.answers[row], colours[None]),
            class_="footprint",
        )
        for row, place in _thin(places, _FOOTPRINTS)
        if place.footprint
    ]
    parts.append(tag("polyline", points=frame.path(_thin(track, _TRACK_POINTS)), class_="track"))
    if track:
        x, y = frame.at(track[0])
        parts.append(tag("circle", tag("title", "start"), cx=f"{x:.1f}", cy=f"{y:.1f}", r=7, class_="start"))
    for number, event in enumerate(summary.events, start=1):
        where = event.place or summary.places[event.first]
        pose = summary.poses[event.first]
        point = (where.lon_deg, where.lat_deg) if where else (pose.lon_deg, pose.lat_deg) if pose else None
        if point is not None:
            parts.append(_marker(frame.at(point), number, event.label, colours.get(event.label, colours[None])))
    drawing = tag("svg", parts, frame.scale(), viewBox=f"0 0 {frame.width:.0f} {frame.height:.0f}", class_="map",
                  role="img", aria_label="Track, footprints and events, north up")  # fmt: skip
    lat, lon = frame.middle
    note = f"North is up; the middle is {lat:.5f}, {lon:.5f}. The green dot is the start; numbers are the events below."
    return tag("section", tag("h2", "Map"), drawing, tag("p", note, class_="note"))


class Marked(NamedTuple):
    """What a number on a map stands for: (longitude, latitude), a text, and the ground that is shown, or nothing."""

    number: int
    point: Point
    text: str
    ground: tuple[Point, ...] = ()


def draw_marks(marks: list[Marked], tracks: list[list[Point]], colour: str) -> Element:
    """Draw numbered places with their ground over the tracks of their flights, north up."""
    points = [point for mark in marks for point in (mark.point, *mark.ground)]
    frame = _Frame(points + [point for track in tracks for point in track])
    parts = [tag("polyline", points=frame.path(_thin(track, _TRACK_POINTS)), class_="track") for track in tracks]
    parts += [
        tag("polygon", tag("title", mark.text), points=frame.path(mark.ground), fill=colour, class_="footprint")
        for mark in marks
        if mark.ground
    ]
    parts += [_marker(frame.at(mark.point), mark.number, mark.text, colour) for mark in reversed(marks)]
    lat, lon = frame.middle
    return tag("svg", parts, frame.scale(), viewBox=f"0 0 {frame.width:.0f} {frame.height:.0f}", class_="map",
               role="img", aria_label=f"{len(marks)} places around {lat:.5f}, {lon:.5f}, north up")  # fmt: skip


class _Frame:
    """A flat projection around the middle of some points, in units of the drawing."""

    def __init__(self, points: list[Point]) -> None:
        lon, lat = np.array([(beside(lon, points[0][0]), lat) for lon, lat in points]).T
        self.middle = float((lat.min() + lat.max()) / 2), beside(float((lon.min() + lon.max()) / 2), 0.0)
        self._m_per_lon = _M_PER_DEG * max(0.01, math.cos(math.radians(self.middle[0])))
        wide = max(float(lon.max() - lon.min()) * self._m_per_lon, 20.0)
        high = max(float(lat.max() - lat.min()) * _M_PER_DEG, 20.0)
        high, wide = max(high, wide / 2.2), max(wide, high / 1.2)
        self._px_per_m = _SIZE / (wide * (1 + 2 * _MARGIN))
        self.width, self.height = float(_SIZE), high * (1 + 2 * _MARGIN) * self._px_per_m

    def at(self, point: Point) -> Point:
        """Return where a longitude and a latitude are drawn."""
        lon, lat = point
        x = (beside(lon, self.middle[1]) - self.middle[1]) * self._m_per_lon * self._px_per_m
        y = (lat - self.middle[0]) * _M_PER_DEG * self._px_per_m
        return self.width / 2 + x, self.height / 2 - y

    def path(self, points: list[Point] | tuple[Point, ...]) -> str:
        """Write points as an SVG path."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.at, points))

    def scale(self) -> list[Element]:
        """Draw a scale bar of a round length."""
        most = 0.3 * self.width / self._px_per_m
        step = 10 ** math.floor(math.log10(most))
        metres = max(step * times for times in (1, 2, 5) if step * times <= most)
        x, y = 24.0, self.height - 22
        right = x + metres * self._px_per_m
        text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        line = f"{x:.1f},{y - 8:.1f} {x:.1f},{y:.1f} {right:.1f},{y:.1f} {right:.1f},{y - 8:.1f}"
        return [
            tag("polyline", points=line, class_="scale"),
            tag("text", text, x=f"{x + 8:.1f}", y=f"{y - 10:.1f}", class_="scale"),
        ]


def _marker(at: Point, number: int, label: str, colour: str) -> Element:
    x, y = at
    return tag(
        "g",
        tag("title", f"{number}: {label}"),
        tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=15, fill=colour),
        tag("text", str(number), x=f"{x:.1f}", y=f"{y:.1f}"),
        class_="event",
    )


def _thin(items: list, most: int) -> list:  # type: ignore[type-arg]
    """Return at most so many of the items, evenly spread."""
    if len(items) <= most:
        return items
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most)]
