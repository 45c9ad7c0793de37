"""Reviews in an archive: one append-only file per reviewer, so that copies merge without a conflict.

A line is one decision. The newest decision of a reviewer about a finding counts; where reviewers differ, the finding is
disputed until they agree. Nothing is ever deleted: a comment or an earlier decision stays in the file.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

import msgspec

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from overflight.station.archive import Archive

State = Literal["confirmed", "rejected", "unsure"]
STATES: tuple[State, ...] = get_args(State)
FOLDER = "review"
MOST_COMMENT = 2_000
_REVIEWER = re.compile(r"[\w][\w .@+-]{0,63}")
_NUMBER = re.compile(r"([0-9a-f]{6,16})-([0-9]{1,15})(?:\.([0-9]{1,15}))?")


class Review(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision of one reviewer about one finding."""

    finding: str
    state: State
    reviewer: str
    utc_ns: int
    comment: str = ""
    label: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """A finding with the decisions that count: ``state`` is theirs, or "disputed" where reviewers differ."""

    number: str
    state: str
    reviews: tuple[Review, ...]


def finding_number(flight: str, frame: int, tile: int = 0) -> str:
    """Return a finding's number, such as ``3fa09c11-120`` or ``3fa09c11-120.4`` for tile 4.

    It is made of the flight's id, the frame and the tile, so it is the same in every copy of the archive.
    """
    return f"{flight[:8]}-{frame}" + (f".{tile}" if tile else "")


def mark(
    archive: Archive, number: str, state: State, reviewer: str, *, comment: str = "", label: str | None = None
) -> Review:
    """Write one decision. Raises UsageError for an unknown finding, state or reviewer's name."""
    if state not in STATES:
        raise UsageError(f"{state}: expected one of {', '.join(STATES)}")
    if not _REVIEWER.fullmatch(reviewer):
        raise UsageError(f"reviewer {reviewer!r}: expected 1 to 64 letters, digits, spaces or . @ + - _")
    if len(comment) > MOST_COMMENT:
        raise UsageError(f"a comment of {len(comment)} characters; at most {MOST_COMMENT} are kept")
    row_of(archive, number)
    review = Review(number, state, reviewer, time.time_ns(), comment, label)
    path = _path(archive, reviewer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.locked(), path.open("a+b") as file:
        file.write(_end_of_line(file) + msgspec.json.encode(review) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return review


def findings(archive: Archive) -> list[Finding]:
    """Return every reviewed finding with the newest decision of each reviewer, by number."""
    newest: dict[str, dict[str, Review]] = {}
    for review in _reviews(archive.directory / FOLDER):
        known = newest.setdefault(review.finding, {}).get(review.reviewer)
        if known is None or review.utc_ns >= known.utc_ns:
            newest[review.finding][review.reviewer] = review
    return [
        Finding(number, _state(by.values()), tuple(sorted(by.values(), key=lambda review: review.utc_ns)))
        for number, by in sorted(newest.items())
    ]


def merge(archive: Archive, other: Path) -> int:
    """Take the decisions of another archive (or of a copied ``review`` folder); return how many are new."""
    folder = other / FOLDER if (other / FOLDER).is_dir() else other
    if not folder.is_dir() or not any(folder.glob("*.jsonl")):
        raise UsageError(f"{other}: no reviews here; expected an archive, or its {FOLDER} folder")
    new = 0
    with archive.locked():
        for theirs in sorted(folder.glob("*.jsonl")):
            ours = archive.directory / FOLDER / theirs.name
            known = _lines(ours)
            added = [line for line in _lines(theirs) if line not in known]
            if added:
                ours.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(ours, b"".join(line + b"\n" for line in (*known, *added)))
            new += len(added)
    return new


def row_of(archive: Archive, number: str) -> int:
    """Return the row of the archive that a finding's number names. Raises UsageError for none."""
    parts = _NUMBER.fullmatch(number)
    if parts is None:
        raise UsageError(f"{number}: expected a finding's number such as 3fa09c11-120 or 3fa09c11-120.4")
    with archive.read() as connection:
        found = connection.execute(
            "SELECT r.id FROM flights f JOIN rows r ON r.id >= f.first AND r.id < f.first + f.rows "
            "WHERE f.id LIKE ? AND r.frame = ? AND r.tile = ?",
            (f"{parts[1]}%", int(parts[2]), int(parts[3] or 0)),
        ).fetchall()
    if len(found) != 1:
        raise UsageError(f"{number}: {len(found) or 'no'} rows of {archive.directory} have this number")
    return int(found[0][0])


def reviewed_rows(archive: Archive, wanted: str) -> frozenset[int]:
    """Return the rows whose finding is confirmed, rejected, ("yes") reviewed at all, or ("no") not reviewed."""
    with archive.read() as connection:
        rows = {
            finding_number(flight, frame, tile): row
            for flight, frame, tile, row in connection.execute(
                "SELECT f.id, r.frame, r.tile, r.id FROM flights f "
                "JOIN rows r ON r.id >= f.first AND r.id < f.first + f.rows"
            )
        }
    reviewed = {one.number: one.state for one in findings(archive)}
    match wanted:
        case "no":
            return frozenset(row for number, row in rows.items() if number not in reviewed)
        case "yes":
            return frozenset(rows[number] for number in reviewed if number in rows)
        case state:
            return frozenset(rows[number] for number, found in reviewed.items() if found == state and number in rows)


def example_list(archive: Archive, state: str, label: str | None = None) -> list[str]:
    """Return the findings of a state as ``flights/ID#FRAMES`` for ``overflight labels --examples``, a line per flight.

    Paths are relative to the archive. ``label`` keeps the findings that a reviewer gave this label.
    """
    rows: dict[str, list[str]] = {}
    flights = {flight.id[:8]: flight.id for flight in archive.flights()}
    for one in findings(archive):
        if one.state == state and (label is None or any(review.label == label for review in one.reviews)):
            flight, _, frame = one.number.partition("-")
            if flight[:8] in flights:
                rows.setdefault(flights[flight[:8]], []).append(frame)
    return [f"flights/{flight}#{','.join(frames)}" for flight, frames in sorted(rows.items())]


def _state(reviews: Iterable[Review]) -> str:
    states = {review.state for review in reviews} - {"unsure"}
    return "disputed" if len(states) > 1 else states.pop() if states else "unsure"


def _path(archive: Archive, reviewer: str) -> Path:
    return archive.directory / FOLDER / f"{reviewer.replace(' ', '_')}.jsonl"


def _end_of_line(file: BinaryIO) -> bytes:
    """Return what ends a line that a power cut has torn: the next decision would be lost with it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    return b"" if file.read(1) in {b"", b"\n"} else b"\n"


def _reviews(folder: Path) -> Iterable[Review]:
    """Yield every decision that can be read; a line torn by a power cut is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in _lines(path):
            try:
                yield decode_json(line, Review)
            except msgspec.DecodeError:
                continue


def _lines(path: Path) -> list[bytes]:
    return list(dict.fromkeys(path.read_bytes().splitlines())) if path.is_file() else []
