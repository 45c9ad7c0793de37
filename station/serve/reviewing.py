"""Review from the page: the list of findings, decisions, and files to hand over or to merge."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.zip_input import read_entries
from overflight.station.review import findings, mark, merge
from overflight.station.review.store import FOLDER
from overflight.station.search.export import export_hits
from overflight.station.search.ranking import Hit
from overflight.station.search.search import Found
from overflight.station.search.wall import pictures_of, write_wall
from overflight.station.serve.endpoint import MOST_REVIEW_BYTES, Call, File, RefusedError
from overflight.station.serve.rows import reviews_of, rows_by_number, seen_rows
from overflight.station.serve.shapes import ExportAsked, FindingsAsked, FindingsPage, Mark, Merged, Seen

if TYPE_CHECKING:
    import sqlite3

    from overflight.station.archive import ArchivedFlight
    from overflight.station.serve.desk import Desk

GAP_FRAMES = 90  # labelled frames farther apart than this are two findings
_SAFE = re.compile(r"[\w][\w .@+-]{0,70}\.jsonl")
MEDIA = {
    "kmz": "application/vnd.google-earth.kmz",
    "gpkg": "application/geopackage+sqlite3",
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
}


class NameAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the file that is sent."""

    name: str = ""


class FindingList:
    """The findings of an archive, made once for each state of its index.

    A finding is where a label began in a flight (one for each run of frames with the same label; every still counts),
    and every other row that somebody reviewed. Numbers never change, so a finding keeps its reviews.
    """

    def __init__(self) -> None:
        self._made: tuple[object, list[int]] = (None, [])  # one value, for requests run in several threads

    def rows(self, desk: Desk) -> list[int]:
        """Return the rows of the findings in the order of the flights."""
        flights = desk.flights()
        numbers = sorted(one.number for one in findings(desk.archive))
        key = (tuple((one.id, one.first, one.rows) for one in flights), tuple(numbers))
        known_key, rows = self._made
        if key != known_key:
            with desk.archive.read() as connection:
                found = [row for flight in flights for row in _begins(connection, flight)]
                known = set(found)
                reviewed = [row for row in rows_by_number(connection, flights, numbers) if row not in known]
            rows = sorted([*found, *reviewed])
            self._made = (key, rows)
        return rows


def get_findings(desk: Desk, call: Call) -> FindingsPage:
    """Return a part of the list of findings."""
    asked: FindingsAsked = call.query
    rows = _LIST.rows(desk)
    reviewed = reviews_of(desk)
    flights = desk.flights()
    if asked.flight:
        spans = [(one.first, one.first + one.rows) for one in flights if asked.flight in {one.id, one.name}]
        rows = [row for row in rows if any(first <= row < last for first, last in spans)]
    if not asked.label and not asked.state:
        part = seen_rows(desk, rows[asked.offset : asked.offset + asked.limit], reviewed)
        return FindingsPage(len(rows), tuple(part))
    kept = [one for one in seen_rows(desk, rows, reviewed) if _wanted(one, asked)]
    return FindingsPage(len(kept), tuple(kept[asked.offset : asked.offset + asked.limit]))


def post_finding(desk: Desk, call: Call) -> Seen:
    """Write a reviewer's decision about a finding."""
    asked: Mark = call.body
    number = call.path["number"]
    mark(desk.archive, number, asked.state, asked.reviewer, comment=asked.comment, label=asked.label)
    with desk.archive.read() as connection:
        rows = rows_by_number(connection, desk.flights(), [number])
    return seen_rows(desk, rows)[0]


def get_reviews(desk: Desk, call: Call) -> File:
    """Return every decision of this archive, to merge elsewhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((desk.archive.directory / FOLDER).glob("*.jsonl")):
            packed.writestr(path.name, path.read_bytes())
    return File(buffer.getvalue(), "application/zip", name="reviews.zip")


def post_merge(desk: Desk, call: Call) -> Merged:
    """Take the decisions of another archive: a .zip as this server gives it, or one reviewer's .jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        _unpack(call.body, call.query.name, Path(folder))
        return Merged(merge(desk.archive, Path(folder)))


def post_export(desk: Desk, call: Call) -> File:
    """Write findings as a file for other programs."""
    asked: ExportAsked = call.body
    with desk.archive.read() as connection:
        rows = rows_by_number(connection, desk.flights(), asked.numbers)
    seen = seen_rows(desk, rows)
    if not seen:
        raise RefusedError(404, "unknown", "none of these findings is in this archive")
    hits = [_hit(one) for one in seen]
    pictures = pictures_of(desk.archive, hits)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"findings.{asked.format}"
        if asked.format == "html":
            found = Found(tuple(hits), tuple(hits), len(hits), 0, 0, None, None, 0, {})
            write_wall(path, "Findings", found, hits, pictures, desk.archive)
        elif export_hits(hits, pictures, path, "Findings") == len(hits) and asked.format != "csv":
            raise RefusedError(409, "no-place", "none of these findings has a place; choose csv or html")
        return File(path.read_bytes(), MEDIA[asked.format], name=path.name)


def _begins(connection: sqlite3.Connection, flight: ArchivedFlight) -> list[int]:
    """Return the first row of every run of frames with one label."""
    rows = connection.execute(
        "SELECT id, frame, label, name FROM rows "
        "WHERE id >= ? AND id < ? AND tile = 0 AND label IS NOT NULL ORDER BY id",
        (flight.first, flight.first + flight.rows),
    )
    found, before = [], (-(10**9), None)
    for row, frame, label, name in rows:
        if name is not None or label != before[1] or frame - before[0] > GAP_FRAMES:
            found.append(row)
        before = (frame, label)
    return found


def _wanted(one: Seen, asked: FindingsAsked) -> bool:
    state = one.state or "none"
    return (not asked.label or one.label == asked.label) and (not asked.state or state == asked.state)


def _hit(seen: Seen) -> Hit:
    fields = {name for name in Hit.__struct_fields__ if name in Seen.__struct_fields__}
    values = {name: getattr(seen, name) for name in fields}
    return Hit(
        **values | {"score": seen.score or 0.0, "cosine": seen.cosine or 0.0, "percentile": seen.percentile or 0.0}
    )


def _unpack(content: bytes, name: str, folder: Path) -> None:
    """Write the decision files that were sent; names are taken only where they are plain. Raises RefusedError."""
    if content[:4] != b"PK\x03\x04":
        if not _SAFE.fullmatch(name):
            raise RefusedError(
                422, "invalid", "expected reviews.zip, or one reviewer's NAME.jsonl with ?name=NAME.jsonl"
            )
        (folder / name).write_bytes(content)
        return
    try:
        entries = read_entries(content, _SAFE, MOST_REVIEW_BYTES)
    except ValueError as error:
        raise RefusedError(422, "invalid", f"not a zip of reviews: {error}") from error
    for entry, found in entries.items():
        (folder / entry).write_bytes(found)


_LIST = FindingList()
