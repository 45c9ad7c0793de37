"""One flight, one directory: a live flight is never replaced, and a lost directory is said and counted."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight import directory as module
from overflight.runtime.flight.directory import Flight, read_record
from overflight.runtime.flight.directory_lock import is_locked, lock_directory, release
from overflight.runtime.flight.journal import Journal
from overflight.runtime.flight.journal_reader import read_observations
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.records import Costs, Observation
from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")


@pytest.fixture
def overflight(colour_bundle: Bundle, colour_bank: LabelBank) -> Overflight:
    return Overflight.load(colour_bundle, colour_bank)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


def observation(number: int) -> Observation:
    return Observation(number, number, 1, "red", (), Costs(1, 2, 3), "b", "e")


def test_a_live_flight_is_not_replaced(overflight: Overflight, tmp_path: Path) -> None:
    """The second is refused while the first is written, and its files stay; afterwards --replace works."""
    out = tmp_path / "flight"
    refused: list[list[str]] = []

    def watch(stream: Stream, seen: Observation) -> None:
        if not refused:
            with pytest.raises(UsageError, match="another flight is being written"):
                fly(overflight, "test://?frames=3&fps=0&size=64x48", out, FlightConfig(replace=True))
            refused.append(sorted(path.name for path in out.iterdir()))

    record = fly(overflight, "test://?frames=30&fps=0&size=64x48", out, on_observation=watch)
    assert record.observed == 30
    assert {"flight.json", "journal.sqlite", "banks"} <= set(refused[0])
    assert len(list(read_observations(out / "journal.sqlite"))) == 30
    fly(overflight, "test://?frames=4&fps=0&size=64x48", out, FlightConfig(replace=True))
    assert read_record(out).observed == 4
    assert not is_locked(out)


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    """Also after kill -9; a lock of this process keeps others out."""
    code = (
        "import sys, time; from pathlib import Path;"
        "from overflight.runtime.flight.directory_lock import lock_directory;"
        "lock_directory(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"locked\n"
    assert is_locked(tmp_path)
    with pytest.raises(UsageError, match="another flight"):
        lock_directory(tmp_path)
    child.kill()
    child.communicate()
    until(lambda: not is_locked(tmp_path))
    release(lock_directory(tmp_path))


def test_a_journal_that_lost_its_file_says_so_and_counts_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted in flight: trouble while its directory is gone, every row that was in it counted, a new file after."""
    monkeypatch.setattr("overflight.runtime.flight.journal.COMMIT_S", 0.02)
    folder = tmp_path / "flight"
    folder.mkdir()
    journal = Journal(folder / "journal.sqlite")
    for number in range(20):
        journal.append(observation(number), np.ones(3, np.float32))
    until(lambda: journal._written["observations"] == 20)
    shutil.rmtree(folder)
    until(lambda: journal.trouble is not None)
    assert journal.unrecorded["observations"] == 20
    for number in range(20, 30):
        journal.append(observation(number), None)
    time.sleep(0.1)
    assert journal.trouble is not None
    folder.mkdir()
    until(lambda: journal.trouble is None)
    journal.close()
    assert [one.frame for one in read_observations(folder / "journal.sqlite")] == [*range(20, 30)]
    assert journal.unrecorded == {"observations": 20}


def test_the_files_of_a_flight_are_not_for_everyone(overflight: Overflight, tmp_path: Path) -> None:
    """0640, the folders 0750: the source may be someone's garden."""
    fly(overflight, "test://?frames=5&fps=0&size=64x48", tmp_path / "flight")
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "flight", *(tmp_path / "flight").rglob("*"))
    }
    assert all(mode & 0o027 == 0 for mode in modes.values()), modes
    assert modes["flight/flight.json"] == 0o640


def another(bank: LabelBank, number: int) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, name=f"b{number}"), bank.vectors)


def test_the_banks_of_a_flight_are_bounded(
    overflight: Overflight, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a new bank is refused before it is used; one that is kept already costs nothing."""
    monkeypatch.setattr(module, "MOST_BANK_BYTES", 3 * len(colour_bank.raw) + 200)
    flight = Flight.begin(tmp_path / "flight", "x", overflight)
    flight.keep_bank(another(colour_bank, 1))
    flight.keep_bank(another(colour_bank, 2))
    with pytest.raises(OverflightError, match="the bank in use stays"):
        flight.keep_bank(another(colour_bank, 3))
    flight.keep_bank(another(colour_bank, 2))
    flight.journal.close()


def test_a_bank_that_cannot_be_kept_is_not_used(
    overflight: Overflight, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the bank in use stays, and the reason is said."""
    from overflight.runtime.flight.banks import Banks

    flight = Flight.begin(tmp_path / "flight", "x", overflight)
    banks = Banks(overflight)
    banks.begin(flight)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OverflightError, match="No space left on device"):
        banks.use(another(colour_bank, 1))
    assert overflight.bank.sha256 == colour_bank.sha256
    monkeypatch.undo()
    banks.use(another(colour_bank, 1))
    assert overflight.bank.header.name == "b1"
    flight.journal.close()
