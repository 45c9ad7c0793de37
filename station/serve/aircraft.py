"""Flights as they are now: read from their directories, and from their health links where these are given."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from overflight.runtime.errors import OverflightError
from overflight.runtime.event import Event
from overflight.runtime.flight.directory import JOURNAL, RECORD, read_record
from overflight.runtime.json_input import decode_json
from overflight.runtime.records import Observation
from overflight.station.serve.live_shapes import Aircraft, Health, LiveEvent, LiveTile
from overflight.station.serve.shapes import LabelScore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from overflight.station.serve.health_links import LinkState

_Record = TypeVar("_Record")
MOST_EVENTS = 60
RECENT_NS = 600 * 10**9  # a flight of a folder is shown for ten minutes after its end
MOST_AGE_NS = 3600 * 10**9


def find_flights(places: Sequence[Path]) -> list[Path]:
    """Return the flight directories at ``places``: each itself, or those inside that run or have just ended."""
    found = []
    for place in places:
        if (place / RECORD).is_file():
            found.append(place)
        elif place.is_dir():
            inside = (one for one in sorted(place.iterdir()) if (one / RECORD).is_file())
            found += [one for one in inside if _recent(one)]
    return found


def read_aircraft(directory: Path) -> Aircraft:
    """Return what a flight's directory says now. Raises OverflightError where it cannot be read."""
    record = read_record(directory)
    name = directory.resolve().name
    ended = record.ended_utc_ns is not None
    journal = directory / JOURNAL
    if not journal.is_file():
        return Aircraft(name, name, ended)
    try:
        with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            one = _read(connection, name, ended)
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        raise OverflightError(f"{journal}: {error}") from error
    if one.bank and record.bank_sha256.startswith(
        one.bank
    ):  # else another one, sent in flight: its hash is all we have
        one = msgspec.structs.replace(one, bank=record.bank)
    return one


def newest_picture(directory: Path) -> bytes | None:
    """Return the newest small picture of a flight."""
    return _picture(directory, "id DESC")


def event_picture(directory: Path, frame: int) -> bytes | None:
    """Return the picture nearest to a frame."""
    return _picture(directory, "abs(frame - ?)", frame)


def _picture(directory: Path, order: str, *values: int) -> bytes | None:
    query = f"SELECT jpeg FROM pictures ORDER BY {order} LIMIT 1"  # noqa: S608 - our own orders
    try:
        with closing(sqlite3.connect(f"{(directory / JOURNAL).resolve().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(query, values).fetchone()
    except sqlite3.DatabaseError:
        return None
    return None if found is None else bytes(found[0])


def with_link(one: Aircraft, link: LinkState) -> Aircraft:
    """Add what the health link says: the newest picture is then that of the newest frame."""
    if link.status is None:
        trouble = Health("link", "warn", link.trouble or "")
        return msgspec.structs.replace(one, health=(*one.health, trouble))
    health = [Health("flight", "bad", link.status.trouble)] if link.status.trouble else []
    health += [Health(name, "warn", text) for name, text in link.status.warnings.items()]
    bank = link.bank.name if link.bank is not None else one.bank
    status = link.status
    given: dict[str, Any] = {"health": tuple(health), "bank": bank}
    if one.frame is None and status.frame is not None:  # a flight on another machine
        given |= {"frame": status.frame, "label": status.label, "age_s": status.age_s}
    return msgspec.structs.replace(one, **given, picture=given.get("frame", one.frame))


def _recent(directory: Path) -> bool:
    try:
        record = read_record(directory)
    except OverflightError:
        return False
    if record.ended_utc_ns is not None:
        return time.time_ns() - record.ended_utc_ns < RECENT_NS
    try:
        return time.time_ns() - (directory / JOURNAL).stat().st_mtime_ns < RECENT_NS
    except OSError:
        return True


def _read(connection: sqlite3.Connection, name: str, ended: bool) -> Aircraft:
    newest = connection.execute("SELECT record FROM observations ORDER BY id DESC LIMIT 20").fetchall()
    events = _events(connection, name)
    if not newest:
        return Aircraft(name, name, ended, events=events)
    recent = list(_decoded((raw for (raw,) in newest), Observation))
    if not recent:
        return Aircraft(name, name, ended, events=events)
    last = recent[0]
    found = connection.execute("SELECT frame FROM pictures ORDER BY id DESC LIMIT 1").fetchone()
    pose, place = last.pose, last.place
    return Aircraft(
        name,
        name,
        ended,
        frame=last.frame,
        picture=None if found is None else found[0],
        label=last.label,
        scores=tuple(LabelScore(one.label, one.score if one.share is None else one.share) for one in last.scores[:4]),
        tiles=_tiles(last),
        age_s=_age_s(last),
        fps=_rate(recent),
        utc_ns=last.utc_ns,
        lat_deg=pose.lat_deg if pose else None,
        lon_deg=pose.lon_deg if pose else None,
        height_m=getattr(pose, "height_m", None),
        footprint=place.footprint if place else (),
        dropped=sum(sum(one.dropped.values()) for one in recent),
        bank=last.bank,
        events=events,
    )


def _decoded(rows: Iterable[bytes], kind: type[_Record]) -> Iterator[_Record]:
    """Decode rows; one that cannot be decoded is passed over, and counted by the readers of the whole flight."""
    for raw in rows:
        try:
            yield decode_json(raw, kind)
        except (msgspec.DecodeError, TypeError):  # TypeError: another type of SQLite
            continue


def _tiles(last: Observation) -> tuple[LiveTile, ...]:
    grid = last.tiles
    if grid is None:
        return ()
    width, height = 1 / grid.columns, 1 / grid.rows
    return tuple(
        LiveTile(number % grid.columns * width, number // grid.columns * height, width, height, label, score)
        for number, (label, score) in enumerate(zip(grid.labels, grid.scores, strict=True))
    )


def _age_s(last: Observation) -> float | None:
    """Return how long ago the newest frame arrived; None where its clock is not this machine's."""
    age_ns = time.monotonic_ns() - last.captured_ns
    return age_ns / 1e9 if 0 <= age_ns < MOST_AGE_NS else None


def _rate(recent: list[Observation]) -> float | None:
    span_ns = recent[0].captured_ns - recent[-1].captured_ns
    return None if span_ns <= 0 else (len(recent) - 1) / (span_ns / 1e9)


def _events(connection: sqlite3.Connection, name: str) -> tuple[LiveEvent, ...]:
    """Return the newest decisions, each with whether it has ended."""
    steps: dict[str, list[Event]] = {}
    for (raw,) in connection.execute("SELECT record FROM events ORDER BY id DESC LIMIT ?", (4 * MOST_EVENTS,)):
        for event in _decoded([raw], Event):
            steps.setdefault(event.id, []).append(event)
    return tuple(_event(name, newest_first) for newest_first in list(steps.values())[:MOST_EVENTS])


def _event(name: str, steps: list[Event]) -> LiveEvent:
    last, first = steps[0], steps[-1]
    began = first.frame if first.started_frame is None else first.started_frame
    place: Any = last.place or last.pose
    return LiveEvent(
        last.id,
        last.label,
        last.type == "end",
        last.score,
        utc_ns=first.started_utc_ns,
        lat_deg=place.lat_deg if place else None,
        lon_deg=place.lon_deg if place else None,
        picture=f"/api/live/{quote(name, safe='')}/events/{began}.jpg",
    )
