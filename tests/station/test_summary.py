"""A flight's figures.

Covers: station/pictures.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.flight.journal import Journal
from overflight.station.summary import read, summarise

if TYPE_CHECKING:
    from overflight.runtime.records import Observation

MakeFlight = Callable[..., Path]


def test_time_per_label(make_flight: MakeFlight) -> None:
    """Each label has its share of the time, its ends and its longest run; the longest seen comes first."""
    summary = summarise(make_flight(["meadow"] * 30 + ["water"] * 10 + ["meadow"] * 10 + [None] * 50))

    unknown, meadow, water = summary.labels
    assert (unknown.label, meadow.label, water.label) == (None, "meadow", "water")
    assert (meadow.count, meadow.first, meadow.last) == (40, 0, 49)
    assert meadow.weight == pytest.approx(1.6)
    assert meadow.longest == pytest.approx(1.2)
    assert sum(label.share for label in summary.labels) == pytest.approx(1)
    assert meadow.best == pytest.approx(summary.scores[49])


def test_unknown_has_no_score(make_flight: MakeFlight) -> None:
    """The background that won is no answer, so "unknown" has no score, however near a label came."""
    summary = summarise(make_flight([None, "meadow"]))
    assert summary.scores[0] == 0
    assert summary.scores[1] > 0.5


def test_gap_counts_for_nobody(make_flight: MakeFlight) -> None:
    """The time in which a camera was lost is not given to the label seen before."""

    def lost_for_a_minute(seen: Observation) -> Observation:
        return msgspec.structs.replace(
            seen,
            media_ns=None,
            captured_utc_ns=1,
            captured_ns=seen.captured_ns + (60_000_000_000 if seen.frame >= 10 else 0),
        )

    summary = summarise(make_flight(["meadow"] * 10 + ["water"] * 10, lost_for_a_minute))
    assert summary.axis == "clock"
    assert summary.weights.sum() < 1


def test_stills_are_counted_not_timed(make_flight: MakeFlight) -> None:
    """Pictures have no duration: each weighs one."""

    def still(seen: Observation) -> Observation:
        return msgspec.structs.replace(seen, media_ns=None, name=f"IMG_{seen.frame}.jpg")

    summary = summarise(make_flight(["meadow"] * 3 + ["water"], still))
    assert summary.axis == "pictures"
    assert summary.weights.tolist() == [1, 1, 1, 1]


def test_standing_clock_of_a_recording(make_flight: MakeFlight) -> None:
    """A container whose positions stand still falls back to frame numbers."""
    summary = summarise(make_flight(["meadow"] * 3, lambda seen: msgspec.structs.replace(seen, media_ns=0)))
    assert summary.axis == "pictures"
    assert summary.times.tolist() == [0, 1, 2]


def test_torn_last_line_is_counted(make_flight: MakeFlight) -> None:
    """A torn last line costs itself alone, and is counted."""
    flight = make_flight(["meadow"] * 5)
    lines = flight / "observations.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])
    summary = summarise(flight)
    assert (len(summary), summary.unreadable) == (4, 1)


def test_journal_stands_in_for_a_missing_export(make_flight: MakeFlight) -> None:
    """After a power cut there is no observations.jsonl: the journal is read."""
    flight = make_flight(["meadow"] * 5)
    observations, _ = read(flight)
    (flight / "observations.jsonl").unlink()
    assert len(summarise(flight)) == 0

    journal = Journal(flight / "journal.sqlite")
    for seen in observations:
        journal.append(seen, np.ones(3, np.float32))
    journal.close()
    assert read(flight) == (observations, 0)


def test_losses_of_an_unended_flight(make_flight: MakeFlight) -> None:
    """Without a recorded end, the losses are added up from the observations."""

    def losing(seen: Observation) -> Observation:
        return msgspec.structs.replace(seen, dropped={"stale": 2} if seen.frame % 2 else {"frozen": 1})

    assert summarise(make_flight(["meadow"] * 4, losing)).dropped == {"stale": 4, "frozen": 2}


def test_not_a_flight(tmp_path: Path) -> None:
    """A folder that is no flight is refused."""
    with pytest.raises(UsageError, match="not a flight directory"):
        summarise(tmp_path)
