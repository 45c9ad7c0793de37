"""Scoring flights of an archive again with another label bank, with events and incidents followed as in flight."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.decisions.incident import Incidents
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight.directory import read_record
from overflight.station.archive.rows import glances_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.decisions.decide import Decision
    from overflight.station.archive import Archive, ArchivedFlight

CHUNK_ROWS = 8_192


class Rescored(msgspec.Struct, frozen=True):
    """What a bank says of a flight: frames and tiles by label ("" is unknown), and its events."""

    flight: str
    flight_name: str
    bank: str
    frames: dict[str, int]
    tiles: dict[str, int]
    events: tuple[Event, ...]


def rescore(archive: Archive, bank: LabelBank, flight: ArchivedFlight, rules: EventRules | None = None) -> Rescored:
    """Decide every kept frame and tile of a flight again, and follow its events.

    Scores come from the embeddings as they were kept, in 16 bits: a cosine differs by less than 0.001 from the one in
    flight. Frames without an embedding have no decision. Raises UsageError for a bank of another tower.
    """
    if bank.header.tower != flight.tower:
        raise UsageError(
            f"{bank.header.name}: made for {bank.header.model} (tower {bank.header.tower[:12]}), but {flight.name} has "
            f"embeddings of {flight.model} (tower {flight.tower[:12]}); make the bank again with: overflight labels"
        )
    directory = archive.flight_directory(flight.id)
    tracker = EventTracker(rules or EventRules(), f"{read_record(directory).started_utc_ns:x}")
    incidents = Incidents()
    used = bank.sha256[:16]
    decisions = decide_rows(bank, archive.vectors(flight))
    frames: Counter[str] = Counter()
    tiles: Counter[str] = Counter()
    events: list[Event] = []
    for seen, tile_count in glances_of(archive, flight):
        decision = next(decisions)
        frames[decision.label or ""] += 1
        for tile in islice(decisions, tile_count):
            tiles[tile.label or ""] += 1
        seen.bank = used
        events += map(incidents.join, tracker.follow(seen, decision))
    events += map(incidents.join, tracker.end())
    return Rescored(flight.id, flight.name, bank.sha256, dict(frames), dict(tiles), tuple(events))


def decide_rows(bank: LabelBank, vectors: NDArray[np.float16]) -> Iterator[Decision]:
    """Yield the decision for each row of unit embeddings ``[N, D]``, in order."""
    matcher, decider = Matcher(bank), Decider(bank)
    for start in range(0, len(vectors), CHUNK_ROWS):
        yield from decider.decide_rows(matcher.match_rows(vectors[start : start + CHUNK_ROWS].astype(np.float32)))
