"""Presence: what a report says of labels that were seen next to a better one, from the observations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from overflight.runtime.bank import Label, LabelBank
from overflight.runtime.records import Score
from overflight.station.report import make_report
from overflight.station.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.records import Observation

SURE = (Score("red", 0.9, 0.9), Score("green", 0.8, 0.7), Score("blue", 0.1, 0.2))


@pytest.fixture
def flight(make_flight: Callable[..., Path], colour_bank: LabelBank) -> Path:
    """Return a flight of 10 frames: red always the best, green present in the last six, unknown once."""
    labels = tuple(Label(text, (text,), threshold=0.5) for text in ("red", "green", "blue"))
    bank = LabelBank.make(msgspec.structs.replace(colour_bank.header, labels=labels), colour_bank.vectors)

    def change(seen: Observation) -> Observation:
        scores = SURE if seen.frame >= 4 else (SURE[0], SURE[2])
        return msgspec.structs.replace(seen, scores=scores, bank=bank.sha256[:16])

    made = make_flight(["red"] * 9 + [None], change, labels=("red", "green", "blue"))
    (made / "banks").mkdir()
    bank.save(made / "banks" / f"{bank.sha256[:16]}.safetensors")
    return made


def test_a_label_next_to_a_better_one_was_seen(flight: Path) -> None:
    """Without any event: for how long, and from when to when; a frame that was answered unknown shows nothing."""
    summary = summarise(flight)
    found = {label.label: label for label in summary.labels}
    assert (found["green"].first, found["green"].last, found["green"].weight) == (4, 8, 0.0)
    assert found["green"].shown == pytest.approx(5 * 0.04)
    assert found["red"].shown == pytest.approx(found["red"].weight) == pytest.approx(9 * 0.04)
    page = make_report(summary).decode()
    assert "Never seen: blue." in page
    assert "Present" in page


def test_without_its_bank_only_the_best_label_is_known(flight: Path) -> None:
    """As in a flight whose folder was copied in part."""
    for path in (flight / "banks").iterdir():
        path.unlink()
    assert {label.label for label in summarise(flight).labels} == {"red", None}
