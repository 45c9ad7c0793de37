"""Rescoring: the same bank gives the same labels and events as in flight, another bank its own.

Covers: station/commands/rescore.py.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import Label, LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.decisions.match import Match, Matcher
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader, read_events, read_observations
from overflight.station.archive import Archive
from overflight.station.rescore import decide_rows, rescore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)


def test_the_same_bank_answers_as_in_flight(
    fly_over: Callable[..., Path], colour_bank: LabelBank, tmp_path: Path
) -> None:
    """Labels of every frame, and events with their frames and scores (to 16 bits)."""
    archive = Archive(tmp_path / "archive")
    flight, _ = archive.add(fly_over("long", [RED] * 8 + [GREEN] * 8 + [BLUE] * 8))
    again = rescore(archive, colour_bank, flight)
    journal = archive.flight_directory(flight.id) / JOURNAL
    assert again.frames == Counter(seen.label or "" for seen in read_observations(journal))
    flown = [(event.type, event.label, event.frame, event.started_frame) for event in read_events(journal)]
    assert flown
    assert [(event.type, event.label, event.frame, event.started_frame) for event in again.events] == flown


def test_another_bank_gives_other_labels(archive: Archive, colour_bank: LabelBank) -> None:
    """A bank without red: those frames are unknown or something else, never red."""
    header = msgspec.structs.replace(
        colour_bank.header, name="two", labels=(Label("leaf", ("leaf",)), Label("sky", ("sky",)))
    )
    bank = LabelBank.make(header, colour_bank.vectors[1:])
    found = {flight.name: rescore(archive, bank, flight).frames for flight in archive.flights()}
    assert found["first"]["leaf"] == 2
    assert found["second"]["sky"] == 1


def test_a_bank_of_another_tower_is_refused(archive: Archive, colour_bank: LabelBank) -> None:
    """Its cosines would be noise."""
    header = msgspec.structs.replace(colour_bank.header, tower="d" * 64)
    with pytest.raises(UsageError, match="make the bank again"):
        rescore(archive, LabelBank.make(header, colour_bank.vectors), archive.flights()[0])


def test_frames_without_an_embedding_and_damaged_rows_are_passed_over(
    fly_over: Callable[..., Path], colour_bank: LabelBank, tmp_path: Path
) -> None:
    """Every decision meets its own frame: events are those of the whole observations with their own embeddings."""
    flight = fly_over("holes", [RED] * 7 + [GREEN] * 7 + [BLUE] * 7)
    with closing(sqlite3.connect(flight / JOURNAL)) as journal:
        journal.execute("UPDATE observations SET embedding = NULL WHERE frame IN (0, 8, 9)")
        journal.execute("UPDATE observations SET record = '{' WHERE frame IN (2, 20)")
        journal.commit()
    archive = Archive(tmp_path / "archive")
    kept, _ = archive.add(flight)
    again = rescore(archive, colour_bank, kept)
    matcher, decider = Matcher(colour_bank), Decider(colour_bank)
    tracker, expected = EventTracker(EventRules(), again.events[0].flight), []
    for seen, embedding, _ in JournalReader(flight / JOURNAL).frames():
        if embedding is not None:
            expected += tracker.follow(seen, decider.decide(matcher.match(embedding.astype(np.float32))))
    expected += tracker.end()
    assert sum(again.frames.values()) == 16
    assert [msgspec.structs.replace(event, score=0.0) for event in again.events] == [
        msgspec.structs.replace(event, score=0.0, bank=colour_bank.sha256[:16]) for event in expected
    ]


def test_a_journal_that_lost_a_frame_is_said(archive: Archive, colour_bank: LabelBank) -> None:
    """The index names it, so no other frame takes its decision."""
    flight = archive.flights()[0]
    with closing(sqlite3.connect(archive.flight_directory(flight.id) / JOURNAL)) as journal:
        journal.execute("DELETE FROM observations WHERE frame = 1")
        journal.commit()
    with pytest.raises(OverflightError, match="frame 1 is not in its journal"):
        rescore(archive, colour_bank, flight)


@pytest.mark.parametrize("exclusive", [(), ("colour",)])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_many_rows_are_decided_as_one_by_one(
    colour_bank: LabelBank, exclusive: tuple[str, ...], threshold: float | None
) -> None:
    """The product over many rows changes no decision."""
    labels = tuple(
        msgspec.structs.replace(label, group="colour" if exclusive else None, background=label.text == "blue")
        for label in colour_bank.header.labels
    )
    header = msgspec.structs.replace(colour_bank.header, labels=labels, exclusive=exclusive, threshold=threshold)
    bank = LabelBank.make(header, colour_bank.vectors)
    vectors = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    matcher, decider = Matcher(bank), Decider(bank)
    one_by_one = [decider.decide(matcher.match(row.astype(np.float32))) for row in vectors]
    together = list(decide_rows(bank, vectors))
    assert [one.label for one in together] == [one.label for one in one_by_one]
    assert [set(one.still) for one in together] == [set(one.still) for one in one_by_one]
    assert len({one.label for one in together}) > 1
    assert isinstance(matcher.match_rows(vectors.astype(np.float32)), Match)
