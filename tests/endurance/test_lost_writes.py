"""What a power cut leaves of a flight, on a disk that loses everything that was not synced."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from overflight.runtime import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.records import FlightRecord

from .lossy_disk import Change, LossyDisk, build, read_record

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]


class Recorded(NamedTuple):
    """A flight's changes, and the disk's root."""

    changes: list[Change]
    root: str


@pytest.fixture(scope="module")
def recorded(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record every write of a flight of 90 frames, about three seconds."""
    folder = tmp_path_factory.mktemp("recorded")
    disk, log = folder / "disk", folder / "log"
    disk.mkdir()
    colour_bank.save(folder / "bank.safetensors")
    command = [sys.executable, "-m", "overflight", "run", "test://?frames=90&fps=30&size=64x48"]
    command += ["--out", str(disk / "flight"), "--bundle", str(colour_bundle.directory)]
    command += ["--labels", str(folder / "bank.safetensors"), "--json"]
    environment = {
        **os.environ,
        "PYTHONPATH": "src",
        "LD_PRELOAD": str(build(folder)),
        "RECORD_ROOT": str(disk),
        "RECORD_LOG": str(log),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    return Recorded(list(read_record(log)), str(disk))


def left(recorded: Recorded, until: int, place: Path, *, sync_directories: bool = True) -> Path:
    """Return what a power cut after so many changes leaves of the flight."""
    disk = LossyDisk(recorded.root, sync_directories)
    for change in recorded.changes[:until]:
        disk.apply(change)
    place.mkdir()
    disk.cut_power(place)
    return place / "flight"


def rows(flight: Path) -> int:
    """Count the observations of a journal that must be sound."""
    with closing(sqlite3.connect(flight / "journal.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM observations").fetchone()[0])


@pytest.mark.slow
def test_a_finished_flight_is_complete_after_a_power_cut(recorded: Recorded, tmp_path: Path) -> None:
    """Every file by name, with its content: what was reported as written is there."""
    flight = left(recorded, len(recorded.changes), tmp_path / "end")
    record = msgspec.json.decode((flight / "flight.json").read_bytes(), type=FlightRecord)
    assert record.ended_because == "source ended"
    assert rows(flight) == record.observed > 0
    assert len((flight / "observations.jsonl").read_bytes().splitlines()) == record.observed
    assert (flight / "events.jsonl").exists()
    assert len(list((flight / "banks").glob("*.safetensors"))) == 1


@pytest.mark.slow
def test_without_synced_directories_it_would_be_lost(recorded: Recorded, tmp_path: Path) -> None:
    """The test can fail: on the same disk, a program that syncs no directory keeps nothing."""
    assert not left(recorded, len(recorded.changes), tmp_path / "end", sync_directories=False).exists()


@pytest.mark.slow
def test_a_power_cut_at_any_moment_leaves_a_sound_flight(recorded: Recorded, tmp_path: Path) -> None:
    """After each sync, and between two: files are whole or absent, rows only ever grow, commits stay."""
    syncs = [i + 1 for i, change in enumerate(recorded.changes) if change.operation.startswith("sync")]
    moments = sorted({*syncs, *(max(1, i - 1) for i in syncs)})
    before, opened = 0, 0
    for number, moment in enumerate(moments):
        flight = left(recorded, moment, tmp_path / str(number))
        for name in ("flight.json", "observations.jsonl", "events.jsonl"):
            if (flight / name).exists() and name == "flight.json":
                msgspec.json.decode((flight / name).read_bytes(), type=FlightRecord)
            elif (flight / name).exists():
                assert (flight / name).read_bytes().endswith(b"\n") or not (flight / name).read_bytes()
        for bank in (flight / "banks").glob("*.safetensors"):
            LabelBank.load(bank)
        if (flight / "journal.sqlite").exists() and (flight / "journal.sqlite").stat().st_size:
            opened += 1
            try:
                count = rows(flight)
            except sqlite3.OperationalError as error:
                assert "no such table" in str(error), error  # cut before the tables were committed
                count = 0
            assert count >= before
            before = count
    print(f"\n{len(moments)} power cuts, {opened} with a journal; {before} rows at the end")
    assert opened > 10
    assert before >= 80
