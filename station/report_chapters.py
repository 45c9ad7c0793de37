"""Further chapters of a flight's report: its description, its findings with their review, changes since a flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.runtime.errors import UsageError
from overflight.station.page import tag
from overflight.station.words import label_name, say

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Manifest
    from overflight.station.words import Language

_MOST_CHANGES = 40


def description_chapter(flight: Path, bank: LabelBank, manifest: Manifest, language: Language) -> Element:
    """Describe the flight from its recorded embeddings."""
    from overflight.station.describe import describe_flight
    from overflight.station.describe.write import lead, sections

    description = describe_flight(flight, bank, manifest).description
    parts = sections(description, language)
    for part in parts:
        part.tag = "div"
        part.set("class", "part")
        for heading in part.findall("h2"):
            heading.tag = "h3"
    return tag("section", tag("h2", say("description", language)), tag("p", lead(description, language)), parts)


def findings_chapter(flight: Path, archive: Path, language: Language) -> Element:
    """List the flight's events and reviewed findings with what people decided. Raises UsageError if it is not kept."""
    from overflight.runtime.flight.directory import JOURNAL, read_record
    from overflight.runtime.flight.journal_reader import read_events
    from overflight.station.archive import Archive
    from overflight.station.archive.ingest import flight_id
    from overflight.station.review import finding_number, findings

    opened = Archive(archive)
    known = {one.id for one in opened.flights()}
    identity = flight_id(read_record(flight))
    if identity not in known:
        raise UsageError(f"{flight}: not in {archive}; add it with: overflight archive add {archive} {flight}")
    reviewed = {one.number: one for one in findings(opened) if one.number.startswith(f"{identity[:8]}-")}
    events = {finding_number(identity, event.frame): event.label for event in read_events(flight / JOURNAL)}
    rows = []
    for number in dict.fromkeys((*events, *reviewed)):
        found = reviewed.get(number)
        state = say(found.state if found else "not reviewed", language)
        by = ", ".join(review.reviewer for review in found.reviews) if found else ""
        comment = "; ".join(review.comment for review in found.reviews if review.comment) if found else ""
        label = events.get(number) or (found.reviews[-1].label if found else None)
        rows.append([number, "" if label is None else label_name(label, language), state, by, comment])
    if not rows:
        body: Element = tag("p", say("findings none", language))
    else:
        keys = ("finding", "label", "review", "reviewer", "comment")
        head = tag("thead", tag("tr", [tag("th", say(key, language), scope="col") for key in keys]))
        lines = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
        body = tag("div", tag("table", head, tag("tbody", lines)), class_="wide")
    return tag("section", tag("h2", say("findings", language)), body)


def changes_chapter(flight: Path, earlier: Path, bank: LabelBank, manifest: Manifest, language: Language) -> Element:
    """Compare with an earlier flight over the same ground."""
    from overflight.station.changes.flights import compare_flights
    from overflight.station.changes.sentence import sentences
    from overflight.station.changes.write import facts

    changes = compare_flights(earlier, flight, bank, manifest)
    changed = sorted((tile for tile in changes.tiles if tile.changed), key=lambda tile: -tile.score)[:_MOST_CHANGES]
    head = tag("tr", [tag("th", say(key, language), scope="col") for key in ("score", "before", "after")])
    rows = [
        tag(
            "tr",
            tag("td", f"{tile.score:.3f}", class_="number"),
            tag("td", label_name(tile.before, language)),
            tag("td", label_name(tile.after, language)),
        )
        for tile in changed
    ]
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="narrow") if rows else None
    text = [tag("p", sentence) for sentence in sentences(changes, language)]
    return tag("section", tag("h2", say("changes", language)), text, table, list(facts(changes, language)))
