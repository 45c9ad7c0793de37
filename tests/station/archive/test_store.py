"""The archive's directory: adding, listing, removing, and what a killed or a second command leaves.

Covers: station/archive/check.py, station/archive/index.py, station/archive/ingest.py, station/archive/pictures.py,
station/archive/rows.py, station/archive/segment.py, station/archive/sources.py, station/commands/archive.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.station.archive import Archive
from overflight.station.archive.check import check, repair

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
RED = (250, 30, 30)


def test_flights_are_kept_with_their_embeddings(archive: Archive) -> None:
    """One row per frame, in order, of one tower; times and names are those of the frames."""
    first, second = sorted(archive.flights(), key=lambda flight: flight.name)
    assert (first.name, first.rows, first.frames, first.unindexed) == ("first", 3, 3, 0)
    assert (second.first, second.rows) == (first.first + first.rows, 2)
    assert archive.vectors(first).shape == (3, 3)
    assert np.allclose(np.linalg.norm(archive.vectors(first).astype(np.float32), axis=1), 1, atol=1e-3)
    with archive.read() as connection:
        labels = [label for (label,) in connection.execute("SELECT label FROM rows ORDER BY id")]
    assert labels == ["red", "green", "green", "blue", "red"]


def test_a_missing_lock_library_is_named(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """An aircraft's offline archive has none: one line, not an internal error."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingError, match=r"filelock is not installed; run: pip install 'overflight\[station\]'"):
        archive.remove(archive.flights()[0])


def test_adding_a_flight_again_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    """Also from a copy under another name."""
    copy = shutil.copytree(tmp_path / "flights" / "first", tmp_path / "copied")
    before = archive.flights()
    flight, new = archive.add(copy)
    assert not new
    assert flight.name == "first"
    assert archive.flights() == before


def test_an_archive_can_be_moved(archive: Archive, tmp_path: Path) -> None:
    """Nothing inside depends on where it is."""
    before = [flight.id for flight in archive.flights()]
    shutil.move(archive.directory, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "flights")
    moved = Archive(tmp_path / "elsewhere")
    assert [flight.id for flight in moved.flights()] == before
    assert not [one for one in check(moved) if not one.harmless]
    inside = b"".join(path.read_bytes() for path in moved.directory.rglob("*") if path.suffix == ".sqlite")
    assert str(tmp_path / "archive").encode() not in inside


def test_a_removed_flight_leaves_nothing(archive: Archive) -> None:
    """Its rows, places and files are gone, the other flight's are untouched."""
    first, second = archive.flights()
    archive.remove(first)
    assert [flight.id for flight in archive.flights()] == [second.id]
    assert not archive.flight_directory(first.id).exists()
    assert not archive.segment_path(first.id).exists()
    with archive.read() as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (second.rows,)
    assert archive.vectors(second).shape == (second.rows, 3)


@pytest.mark.parametrize("torn", ["journal.sqlite", "flight.json", "banks"])
def test_a_torn_flight_is_refused_whole(archive: Archive, tmp_path: Path, torn: str) -> None:
    """A flight without its journal, record or bank is refused in one line, and the archive is as before."""
    broken = shutil.copytree(tmp_path / "flights" / "first", tmp_path / "torn")
    record = (broken / "flight.json").read_text().replace('"started_utc_ns": 1', '"started_utc_ns": 2')
    (broken / "flight.json").write_text(record)
    target = broken / torn
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    before = archive.flights()
    with pytest.raises(OverflightError):
        archive.add(broken)
    assert archive.flights() == before
    assert not list(archive.directory.glob(".adding-*"))


def test_a_damaged_segment_is_found_and_built_again(archive: Archive) -> None:
    """One flipped byte is found by its hash; the kept journal has every embedding."""
    flight = archive.flights()[0]
    path = archive.segment_path(flight.id)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert [(one.problem, one.harmless) for one in check(archive)] == [("altered", False)]
    assert repair(archive) == [flight.id]
    assert path.read_bytes() == good
    assert check(archive) == []


def test_a_full_disk_adds_nothing(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the archive; the next try adds the flight."""
    extra = shutil.copytree(tmp_path / "flights" / "first", tmp_path / "extra")
    record = (extra / "flight.json").read_text().replace('"host": "', '"host": "other-')
    (extra / "flight.json").write_text(record)
    before = archive.flights()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("overflight.station.archive.segment.SegmentWriter.append", full)
        with pytest.raises(OverflightError, match="No space left"):
            archive.add(extra)
    assert archive.flights() == before
    assert archive.add(extra)[1]


def test_reading_goes_on_while_a_flight_is_added(archive: Archive, tmp_path: Path) -> None:
    """A reader sees one state from beginning to end."""
    extra = shutil.copytree(tmp_path / "flights" / "first", tmp_path / "extra")
    record = (extra / "flight.json").read_text().replace('"host": "', '"host": "other-')
    (extra / "flight.json").write_text(record)
    with archive.read() as connection:
        before = connection.execute("SELECT count(*) FROM rows").fetchone()
        archive.add(extra)
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == before
    with archive.read() as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (before[0] + 3,)


def test_what_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    """No index, or a file that is none."""
    with pytest.raises(OverflightError, match="not an archive"):
        Archive(tmp_path).flights()
    (tmp_path / "index.sqlite").write_bytes(b"not a database, though long enough to be one" * 50)
    with pytest.raises(OverflightError):
        Archive(tmp_path).flights()
    with sqlite3.connect(tmp_path / "newer.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    (tmp_path / "newer.sqlite").replace(tmp_path / "index.sqlite")
    with pytest.raises(OverflightError, match="format 99"):
        Archive(tmp_path).flights()


@pytest.mark.slow
def test_a_killed_add_leaves_nothing_half(archive: Archive, fly_over: Callable[..., Path], tmp_path: Path) -> None:
    """Killed at twenty moments: after each the archive is whole, and the flight is either there or can be added."""
    flight = fly_over("killed", [RED] * 60)
    code = "import sys; from pathlib import Path; from overflight.station.archive import Archive; Archive(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    outcomes = set()
    for number in range(20):
        target = tmp_path / f"archive-{number}"
        shutil.copytree(archive.directory, target)
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}.add(Path(sys.argv[2]))", str(target), str(flight)], env=environment
        )
        time.sleep(0.15 + number * 0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        copy = Archive(target)
        count = len(copy.flights())
        outcomes.add(count)
        assert not [one for one in check(copy) if not one.harmless]
        copy.add(flight)
        assert len(copy.flights()) == 3
        assert [one for one in check(copy) if one.problem == "leftover"] == []
    assert outcomes <= {2, 3}


@pytest.mark.slow
def test_two_adds_at_once_keep_both(archive: Archive, fly_over: Callable[..., Path]) -> None:
    """The second waits for the first."""
    flights = [fly_over("third", [RED] * 20), fly_over("fourth", [RED] * 21)]
    code = "import sys; from pathlib import Path; from overflight.station.archive import Archive; Archive(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", f"{code}.add(Path(sys.argv[2]))", str(archive.directory), str(flight)],
            env=environment,
        )
        for flight in flights
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    assert {flight.name for flight in archive.flights()} == {"first", "second", "third", "fourth"}
    assert not check(archive)


def test_a_flight_by_name_or_id(archive: Archive) -> None:
    """The whole id, its beginning, or the name; anything else is refused."""
    flight = archive.flights()[0]
    assert archive.flight(flight.id[:6]) == archive.flight(flight.name) == flight
    with pytest.raises(UsageError, match="no flights"):
        archive.flight("none")


@pytest.mark.parametrize("left", ["", "PRAGMA user_version = 1"])
def test_an_index_whose_making_was_killed_is_made_again(
    fly_over: Callable[..., Path], tmp_path: Path, left: str
) -> None:
    """A command killed in its first moment leaves an empty index: it is said, and the next one makes it."""
    archive = Archive(tmp_path / "archive")
    archive.directory.mkdir()
    with closing(sqlite3.connect(archive.index)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(left)
    with pytest.raises(OverflightError, match="nothing was added here yet" if not left else "not an archive's index"):
        archive.flights()
    archive.add(fly_over("first", [RED]))
    assert [flight.name for flight in archive.flights()] == ["first"]
