"""The flight directory: complete at the end, readable after the worst end.

Covers: runtime/flight/live_line.py, runtime/log.py, runtime/records.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import OverflightError, SourceError, UsageError
from overflight.runtime.flight import journal as journal_module
from overflight.runtime.flight.directory import JOURNAL, OBSERVATIONS, read_record
from overflight.runtime.flight.journal import Journal
from overflight.runtime.flight.journal_reader import read_embeddings, read_observations
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.records import Costs, Observation, Score

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[3]


def observation(number: int) -> Observation:
    return Observation(number, number * 10, 5, "red", (Score("red", 0.5, 0.9),), Costs(1, 2, 3), "b" * 16, "e" * 16)


@pytest.fixture
def files(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> list[str]:
    colour_bank.save(tmp_path / "bank.safetensors")
    return ["--bundle", str(colour_bundle.directory), "--labels", str(tmp_path / "bank.safetensors")]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "overflight", "run", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_rows(journal: Path, count: int) -> int:
    """Wait until another process has committed this many observations; return how many there are."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OverflightError):
            if (found := len(list(read_observations(journal)))) >= count:
                return found
        time.sleep(0.05)
    raise AssertionError(f"{journal}: {count} observations did not come within 60 s")


def test_a_flight_leaves_everything_a_reader_needs(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """One observation per frame, with embeddings, in the journal and as lines; the record names what flew."""
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        record = fly(overflight, "test://?frames=30&fps=0&size=64x48", tmp_path / "flight")
    lines = (tmp_path / "flight" / OBSERVATIONS).read_bytes().splitlines()
    observations = [msgspec.json.decode(line, type=Observation) for line in lines]
    assert [seen.frame for seen in observations] == list(range(30))
    assert observations == list(read_observations(tmp_path / "flight" / JOURNAL))
    frames, embeddings = read_embeddings(tmp_path / "flight" / JOURNAL)
    assert frames.tolist() == list(range(30))
    assert embeddings.shape == (30, 3)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(float), axis=1), 1, atol=1e-3)
    assert record == read_record(tmp_path / "flight")
    assert (record.observed, record.ended_because, record.unrecorded) == (30, "source ended", {})
    assert record.bank_sha256 == colour_bank.sha256


def test_a_cut_recording_keeps_its_flight(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """The error is raised only after the flight has been closed."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for seed in range(100):
        writer.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        Overflight.load(colour_bundle, colour_bank) as overflight,
        pytest.raises(SourceError, match="pictures, the recording is cut off"),
    ):
        fly(overflight, str(path), tmp_path / "flight")
    record = read_record(tmp_path / "flight")
    assert 20 < record.observed < 80
    assert "pictures, the recording is cut off" in (record.ended_because or "")


def test_a_flight_is_never_overwritten_by_mistake(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """--replace replaces a flight, and nothing but a flight."""
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(overflight, "test://?frames=3&fps=0&size=64x48", tmp_path / "flight")
        with pytest.raises(UsageError, match="--replace"):
            fly(overflight, "test://?frames=3&fps=0&size=64x48", tmp_path / "flight")
        fly(overflight, "test://?frames=4&fps=0&size=64x48", tmp_path / "flight", FlightConfig(replace=True))
        assert read_record(tmp_path / "flight").observed == 4
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis.txt").write_text("x")
        with pytest.raises(UsageError, match="contains no flight"):
            fly(overflight, "test://?frames=4&fps=0&size=64x48", tmp_path / "home", FlightConfig(replace=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_flight_cleanly(files: list[str], tmp_path: Path, number: signal.Signals) -> None:
    """Everything that was observed is written."""
    out = tmp_path / "flight"
    child = start("test://?fps=50&size=64x48", "--out", str(out), *files)
    wait_for_rows(out / JOURNAL, 5)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    record = read_record(out)
    assert record.ended_because == "stopped"
    assert record.observed == len((out / OBSERVATIONS).read_bytes().splitlines()) > 0


def test_a_killed_flight_can_be_read(files: list[str], tmp_path: Path) -> None:
    """What a power cut leaves can be opened, and every row that had been committed is in it."""
    out = tmp_path / "flight"
    child = start("test://?fps=50&size=64x48", "--out", str(out), *files)
    committed = wait_for_rows(out / JOURNAL, 20)
    child.kill()
    child.communicate(timeout=60)
    assert len(list(read_observations(out / JOURNAL))) >= committed
    assert read_record(out).ended_utc_ns is None


def test_a_disk_that_fills_loses_rows_not_the_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal waits, then counts what it could not keep; what was written before stays readable."""
    honest = journal_module.connect

    def small_disk(path: Path) -> sqlite3.Connection:
        connection = honest(path)
        connection.execute("PRAGMA max_page_count = 6")
        return connection

    monkeypatch.setattr(journal_module, "connect", small_disk)
    monkeypatch.setattr(journal_module, "WAITING_ROWS", 10)
    journal = Journal(tmp_path / JOURNAL)
    for number in range(300):
        journal.append(observation(number), np.ones(3, np.float32))
        time.sleep(0.005)
    journal.close()
    kept = [seen.frame for seen in read_observations(tmp_path / JOURNAL)]
    assert kept == sorted(set(kept))
    assert 0 < len(kept) < 300
    assert len(kept) + journal.unrecorded["observations"] == 300
