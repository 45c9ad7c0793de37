"""The report's table of events: when each began, how long it lasted, what it looked like, and where."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from overflight.station.chart import lasting, moment
from overflight.station.page import tag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from overflight.station.event_summary import EventSummary
    from overflight.station.summary import Summary

MOST = 200  # a flickering label must not make a page that no browser opens
PICTURED = 40


def tabulate_events(summary: Summary, colours: Mapping[str | None, str], jpegs: Mapping[int, bytes]) -> Element | None:
    """Make the table; ``jpegs`` are small pictures by row of the flight. None for a flight without events."""
    if not summary.events:
        return None
    located = any(_place(summary, event) for event in summary.events)
    unit = "Pictures" if summary.axis == "pictures" else "Lasted"
    head = ["", "Label", "Began", unit, "Score", *(["Place"] if located else [])]
    rows = [
        tag(
            "tr",
            tag("td", _picture(event, jpegs), str(number), class_="shown"),
            tag("th", tag("i", class_="dot", style=f"background:{colours[event.label]}"), event.label, scope="row"),
            tag("td", moment(summary, event.first), class_="number moment"),
            tag("td", lasting(summary.axis, event.lasted) + ("" if event.ended else ", to the end"), class_="number"),
            tag("td", f"{_score(summary, event):.2f}", class_="number extra"),
            tag("td", _place(summary, event) or "unknown", class_="number place") if located else None,
        )
        for number, event in enumerate(summary.events[:MOST], start=1)
    ]
    kinds = {"Began": "number", unit: "number", "Score": "number extra", "Place": "number place"}
    table = tag(
        "table",
        tag("thead", tag("tr", [tag("th", name, class_=kinds.get(name), scope="col") for name in head])),
        tag("tbody", rows),
        class_="events",
    )
    left = len(summary.events) - MOST
    more = tag("p", f"{left:,} more events are in events.jsonl.", class_="note") if left > 0 else None
    return tag("section", tag("h2", "Events"), tag("div", table, class_="wide"), more)


def _picture(event: EventSummary, jpegs: Mapping[int, bytes]) -> Element | None:
    if event.first not in jpegs:
        return None
    source = "data:image/jpeg;base64," + base64.b64encode(jpegs[event.first]).decode()
    return tag("img", src=source, alt=f"{event.label} begins", loading="lazy")


def _score(summary: Summary, event: EventSummary) -> float:
    """Return the event's best score on the scale of the timeline: inside its exclusive group where it has one."""
    own = [summary.scores[row] for row in range(event.first, event.last + 1) if summary.answers[row] == event.label]
    return float(max(own)) if own else event.score


def _place(summary: Summary, event: EventSummary) -> str | None:
    place = event.place or summary.places[event.first]
    if place is None:
        return None
    return f"{place.lat_deg:.5f}, {place.lon_deg:.5f} ± {place.error_m:.0f} m"
