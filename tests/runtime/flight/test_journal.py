"""The journal: what is kept, what is shed first, and what no reader could decode; with its reader.

Covers: runtime/flight/journal_reader.py.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.errors import OverflightError
from overflight.runtime.event import Event
from overflight.runtime.flight import journal as journal_module
from overflight.runtime.flight.journal import Journal
from overflight.runtime.flight.journal_reader import JournalReader, read_observations
from overflight.runtime.pose.record import Pose
from overflight.runtime.records import Costs, Observation, Score
from overflight.runtime.tiles import TileGrid

GRID = TileGrid(1, 2, ("red", None), (0.9, 0.1))
# The tables of format 1, as 0.0 wrote them: nothing here may follow a change of the code.
FORMAT_1 = """
PRAGMA journal_mode=WAL;
CREATE TABLE observations (
    id INTEGER PRIMARY KEY, frame INTEGER NOT NULL, captured_ns INTEGER NOT NULL, captured_utc_ns INTEGER,
    label TEXT, record BLOB NOT NULL, embedding BLOB);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, event TEXT NOT NULL, type TEXT NOT NULL, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE device (id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, record BLOB NOT NULL);
"""


def observation(number: int, **more: Any) -> Observation:
    seen = Observation(number, number * 10, 5, "red", (Score("red", 0.5, 0.9),), Costs(1, 2, 3), "b" * 16, "e" * 16)
    return msgspec.structs.replace(seen, **more)


def unit(*shape: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).standard_normal(shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors


def test_everything_comes_back(tmp_path: Path) -> None:
    """Observations with the embeddings of frame and tiles, events, pictures; the file says what it is."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    event = Event("f-1", "begin", "red", None, None, 1, 0.9, started_frame=0, media_ns=7)
    journal.append(observation(0, media_ns=7, tiles=GRID), unit(4), unit(2, 4))
    journal.append(observation(1), unit(4))
    journal.append_event(event)
    journal.append_picture(1, ("event", "label"), b"jpeg")
    journal.close()
    assert not journal.unrecorded
    reader = JournalReader(path)
    first, second = reader.frames()
    np.testing.assert_array_equal(first.embedding, unit(4).astype(np.float16))
    np.testing.assert_array_equal(first.tile_embeddings, unit(2, 4).astype(np.float16))
    assert second.tile_embeddings is None
    assert [first.observation, second.observation] == [observation(0, media_ns=7, tiles=GRID), observation(1)]
    assert list(reader.events()) == [event]
    assert [tuple(picture) for picture in reader.pictures()] == [(1, ("event", "label"), b"jpeg")]
    assert reader.embeddings()[1].shape == (2, 4)
    assert (reader.format, +reader.undecodable) == (2, {})
    assert path.read_bytes()[68:72] == b"OFLT"


def test_pictures_are_shed_first_and_events_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the budget fills: pictures, tile embeddings, embeddings, observations."""
    event = Event("f-1", "begin", "red", None, None, 1, 0.9)
    kept = []
    for level in range(5):
        monkeypatch.setattr(Journal, "_pressure", lambda _, level=level: level)
        path = tmp_path / f"{level}.sqlite"
        journal = Journal(path)
        journal.append(observation(0, tiles=GRID), unit(4), unit(2, 4))
        journal.append_picture(1, ("event",), b"jpeg")
        journal.append_event(event)
        journal.close()
        reader = JournalReader(path)
        frames = list(reader.frames())
        kept.append(
            (
                len(list(reader.pictures())),
                sum(frame.tile_embeddings is not None for frame in frames),
                sum(frame.embedding is not None for frame in frames),
                len(frames),
                len(list(reader.events())),
            )
        )
        assert sum(journal.unrecorded.values()) == (0, 1, 2, 3, 2)[level]
    assert kept == [(1, 1, 1, 1, 1), (0, 1, 1, 1, 1), (0, 0, 1, 1, 1), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1)]


def test_the_budget_counts_the_flights_banks(tmp_path: Path) -> None:
    """Eight large banks that were sent in flight use it up as well."""
    journal = Journal(tmp_path / "journal.sqlite", budget_bytes=1_000_000)
    assert journal._pressure() == 0
    (tmp_path / "banks").mkdir()
    (tmp_path / "banks" / "one.safetensors").write_bytes(bytes(900_000))
    assert journal._pressure() == 3
    journal.close()


def test_a_value_that_is_not_finite_is_never_recorded(tmp_path: Path) -> None:
    """JSON has no NaN: it would become a null that no reader takes. A bad pose costs the pose, not the observation."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.append(observation(0, scores=(Score("red", float("nan"), 0.9),)), unit(4))
    journal.append(observation(1, pose=Pose(1, float("nan"), 8.0)), unit(4))
    journal.append(observation(2), unit(4))
    journal.append_event(Event("f-1", "begin", "red", None, None, 1, float("inf")))
    journal.close()
    assert journal.unrecorded == {"observations": 1, "poses": 1, "events": 1}
    assert list(read_observations(path)) == [observation(1), observation(2)]


def test_what_waits_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tile embeddings are large; on a disk that does not answer the newest are counted instead of kept."""
    monkeypatch.setattr(journal_module, "WAITING_BYTES", 100_000)
    monkeypatch.setattr(journal_module, "COMMIT_S", 1000)
    journal = Journal(tmp_path / "journal.sqlite")
    journal.append_picture(0, ("event",), bytes(60_000))
    for number in range(30):
        journal.append(observation(number, tiles=GRID), unit(4), np.zeros((2, 2000), np.float32))
    assert journal._waiting_bytes <= 100_000
    assert journal._waiting_bytes == sum(row.size for row in journal._waiting)
    assert journal.unrecorded["pictures"] == 1
    waiting = len(journal._waiting)
    journal.close()
    assert waiting + journal.unrecorded["observations"] == 30


@pytest.fixture
def format_1(tmp_path: Path) -> Path:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(FORMAT_1)
    record = msgspec.to_builtins(observation(3)) | {"dropped": {"paced": 4, "newer-frame": 1, "similar": 2}}
    event = {
        "id": "f-1", "type": "begin", "label": "red", "started_utc_ns": 5, "utc_ns": 9, "frame": 3, "score": 0.9
    }  # fmt: skip
    connection.execute(
        "INSERT INTO observations VALUES (1, 3, 30, NULL, 'red', ?, ?)",
        (msgspec.json.encode(record), unit(4).astype(np.float16).tobytes()),
    )
    connection.execute("INSERT INTO events VALUES (1, 'f-1', 'begin', 9, ?)", (msgspec.json.encode(event),))
    connection.commit()
    connection.close()
    return path


def test_a_journal_of_format_1_is_read(format_1: Path) -> None:
    """Frames that the user asked to skip are counted apart from lost ones, which format 1 counted together."""
    reader = JournalReader(format_1)
    (frame,) = reader.frames()
    assert reader.format == 1
    assert frame.observation.dropped == {"newer-frame": 1}
    assert frame.observation.skipped == {"fps": 4, "similar": 2}
    assert frame.embedding is not None
    assert (frame.tile_embeddings, list(reader.pictures())) == (None, [])
    (event,) = reader.events()
    assert (event.utc_ns, event.started_frame) == (9, None)


def test_rows_that_cannot_be_decoded_are_counted(format_1: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One bad row costs itself, not the flight."""
    connection = sqlite3.connect(format_1)
    good = connection.execute("SELECT record FROM observations").fetchone()[0]
    for record, vector in (
        (good.replace(b"0.9", b"null"), None),
        (b"{", None),
        (b"\xff\xfe", None),
        (good, b"\x00\x7c" * 4),  # infinity
        (good, b"odd"),
    ):
        connection.execute("INSERT INTO observations VALUES (NULL, 4, 40, NULL, NULL, ?, ?)", (record, vector))
    connection.execute("INSERT INTO events VALUES (NULL, 'x', 'end', 1, '[]')")
    connection.commit()
    connection.close()
    reader = JournalReader(format_1)
    assert len(list(reader.frames())) == 3
    assert len(list(reader.events())) == 1
    assert reader.undecodable == {"observations": 3, "events": 1, "embeddings": 2}
    assert len(list(read_observations(format_1))) == 3
    assert '"undecodable":{"observations":3}' in capfd.readouterr().err


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Half of it might be understood, and the other half silently lost."""
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(OverflightError, match="format 3, expected at most 2"):
        JournalReader(path)


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """A file of another kind is one line, not a traceback."""
    with pytest.raises(OverflightError, match="no journal here"):
        JournalReader(tmp_path / "journal.sqlite")
    (tmp_path / "journal.sqlite").write_text("hello " * 1000)
    with pytest.raises(OverflightError, match="not a flight journal"):
        JournalReader(tmp_path / "journal.sqlite")


@pytest.mark.parametrize("left", [(), ("-wal", "-shm")], ids=["all deleted", "its log left"])
def test_a_journal_deleted_in_flight_is_written_again(
    left: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was written before and what comes after are in the new file; nothing is lost, and it is logged."""
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.02)
    journal = Journal(tmp_path / "j.sqlite")
    for number in range(20):
        journal.append(observation(number), unit(4))
    _until(lambda: journal._written["observations"] == 20)
    for suffix in {"", "-wal", "-shm"} - set(left):
        (tmp_path / f"j.sqlite{suffix}").unlink()
    _until((tmp_path / "j.sqlite").exists)
    for number in range(20, 30):
        journal.append(observation(number), unit(4))
    journal.close()
    assert [one.frame for one in read_observations(tmp_path / "j.sqlite")] == list(range(30))
    assert not journal.unrecorded
    assert "journal restored" in capfd.readouterr().err


def test_a_journal_replaced_in_flight_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file at its place is not overwritten: what was written to the old one is counted as unrecorded."""
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.02)
    journal = Journal(tmp_path / "j.sqlite")
    journal.append(observation(0), unit(4))
    _until(lambda: journal._written["observations"] == 1)
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other").rename(tmp_path / "j.sqlite")
    _until(lambda: journal.unrecorded["observations"] == 1)
    journal.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_journal_deleted_while_it_is_not_open_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a full disk the file is closed: then its rows cannot be copied, and must not vanish without a count."""
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.02)
    journal = Journal(tmp_path / "j.sqlite")
    journal.append(observation(0), unit(4))
    _until(lambda: journal._written["observations"] == 1)
    commit = journal_module._commit

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(journal_module, "_commit", full)
    journal.append(observation(1), unit(4))
    _until(lambda: journal.trouble is not None and journal._connection is None)
    for path in tmp_path.glob("j.sqlite*"):
        path.unlink()
    monkeypatch.setattr(journal_module, "_commit", commit)
    journal.close()
    assert journal.unrecorded == {"observations": 1}
    assert [one.frame for one in read_observations(tmp_path / "j.sqlite")] == [1]


def test_a_lost_journal_is_there_again_before_the_next_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flight that observes nothing any more still ends with a journal."""
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.02)
    journal = Journal(tmp_path / "j.sqlite")
    monkeypatch.setattr(Journal, "_restore", lambda *_: False)
    for path in tmp_path.glob("j.sqlite*"):
        path.unlink()
    _until((tmp_path / "j.sqlite").exists)
    journal.close()
    assert list(read_observations(tmp_path / "j.sqlite")) == []


def test_a_journal_deleted_while_it_is_being_opened_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its identity is that of the file which was opened, not of whatever lies at the path afterwards."""
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.02)
    connect = journal_module.connect

    def deleted(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        monkeypatch.setattr(journal_module, "connect", connect)
        for one in tmp_path.glob("j.sqlite*"):
            one.unlink()
        return connection

    monkeypatch.setattr(journal_module, "connect", deleted)
    journal = Journal(tmp_path / "j.sqlite")
    journal.append(observation(0), unit(4))
    journal.close()
    assert [one.frame for one in read_observations(tmp_path / "j.sqlite")] == [0]
    assert not journal.unrecorded
