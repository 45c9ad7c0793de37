"""Reviews: decisions by number, several reviewers, and merging of copies.

Covers: station/commands/review.py.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from overflight.runtime.errors import UsageError
from overflight.station.archive import Archive
from overflight.station.review import finding_number, findings, mark, merge, reviewed_rows

if TYPE_CHECKING:
    from pathlib import Path


def numbers(archive: Archive) -> list[str]:
    first = archive.flights()[0]
    return [finding_number(first.id, frame) for frame in range(first.frames)]


def test_the_newest_decision_of_a_reviewer_counts(archive: Archive) -> None:
    """Both stay in the file; the comment is kept."""
    number = numbers(archive)[0]
    mark(archive, number, "rejected", "Ada")
    mark(archive, number, "confirmed", "Ada", comment="seen from two sides")
    (found,) = findings(archive)
    assert (found.number, found.state, found.reviews[0].comment) == (number, "confirmed", "seen from two sides")
    assert (archive.directory / "review" / "Ada.jsonl").read_bytes().count(b"\n") == 2


def test_reviewers_who_differ_dispute_a_finding(archive: Archive) -> None:
    """Until they agree; being unsure is no dispute."""
    number = numbers(archive)[0]
    mark(archive, number, "confirmed", "Ada")
    mark(archive, number, "unsure", "Bob")
    assert findings(archive)[0].state == "confirmed"
    mark(archive, number, "rejected", "Bob")
    assert findings(archive)[0].state == "disputed"


def test_two_copies_merge_without_a_conflict(archive: Archive, tmp_path: Path) -> None:
    """Each reviewer works on a copy; merging twice adds nothing, and both archives then agree."""
    copy = Archive(shutil.copytree(archive.directory, tmp_path / "copy"))
    one, two, three = numbers(archive)
    mark(archive, one, "confirmed", "Ada")
    mark(archive, two, "rejected", "Ada")
    mark(copy, two, "confirmed", "Bob")
    mark(copy, three, "confirmed", "Bob")
    assert merge(archive, copy.directory) == 2
    assert merge(archive, copy.directory) == 0
    assert merge(copy, archive.directory / "review") == 2
    assert findings(archive) == findings(copy)
    assert [one.state for one in findings(archive)] == ["confirmed", "disputed", "confirmed"]


def test_rows_by_review(archive: Archive) -> None:
    """Confirmed, rejected, reviewed at all, and not reviewed."""
    first = archive.flights()[0]
    one, two, _ = numbers(archive)
    mark(archive, one, "confirmed", "Ada")
    mark(archive, two, "rejected", "Ada")
    assert reviewed_rows(archive, "confirmed") == {first.first}
    assert reviewed_rows(archive, "rejected") == {first.first + 1}
    assert len(reviewed_rows(archive, "yes")) == 2
    assert len(reviewed_rows(archive, "no")) == 3


@pytest.mark.parametrize(
    ("number", "state", "reviewer"),
    [("none", "confirmed", "Ada"), ("ffffffff-0", "confirmed", "Ada"), ("", "confirmed", "../Ada")],
)
def test_wrong_decisions_are_refused(archive: Archive, number: str, state: str, reviewer: str) -> None:
    """An unknown finding, or a name that is a path."""
    with pytest.raises(UsageError):
        mark(archive, number or numbers(archive)[0], state, reviewer)  # type: ignore[arg-type]


def test_a_torn_line_costs_that_line(archive: Archive) -> None:
    """A power cut in the middle of a write."""
    mark(archive, numbers(archive)[0], "confirmed", "Ada")
    with (archive.directory / "review" / "Ada.jsonl").open("ab") as file:
        file.write(b'{"finding": "3fa')
    assert [one.state for one in findings(archive)] == ["confirmed"]
