"""Watching banks: what is no bank is skipped and said, whatever lies in the folder, and a later good bank is taken."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from overflight.runtime import LabelBank
from overflight.runtime.errors import OverflightError
from overflight.runtime.flight.bank_watch import BankWatch, newest_bank


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


def renamed(bank: LabelBank, name: str) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, name=name), bank.vectors)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overflight.runtime.flight.bank_watch.EVERY_S", 0.03)


class Watched:
    """A watched folder and the names of the banks that were taken."""

    def __init__(self, folder: Path, bank: LabelBank) -> None:
        self.folder = folder
        self.bank = bank
        self.taken: list[str] = []
        self.fails: Exception | None = None
        folder.mkdir()
        self.save("first")
        self.watch = BankWatch(folder, self.use)

    def use(self, bank: LabelBank) -> None:
        if self.fails is not None:
            raise self.fails
        self.taken.append(bank.header.name)

    def save(self, name: str) -> Path:
        path = self.folder / f"{name}.safetensors"
        renamed(self.bank, name).save(path)
        return path

    def takes(self, name: str) -> None:
        """Save a good bank and wait until it is taken."""
        self.save(name)
        until(lambda: bool(self.taken) and self.taken[-1] == name)


@pytest.fixture
def watched(tmp_path: Path, colour_bank: LabelBank) -> Iterator[Watched]:
    made = Watched(tmp_path / "banks", colour_bank)
    yield made
    made.watch.close()


def log(capfd: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("kind", ["dangling", "pipe", "large", "device", "folder", "loop"])
def test_what_is_no_bank_is_skipped_and_said_once(
    kind: str, watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    """A dangling link, a pipe, 6 GB of zeros: none is read, none stops the watch, closing is quick."""
    path = watched.folder / "b.safetensors"
    match kind:
        case "dangling":
            path.symlink_to("/nonexistent")
        case "pipe":
            os.mkfifo(path)
        case "large":
            with path.open("wb") as file:
                file.truncate(6 << 30)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
    time.sleep(0.2)
    watched.takes("good")
    began_s = time.monotonic()
    watched.watch.close()
    assert time.monotonic() - began_s < 2.0
    skipped = [line for line in log(capfd) if line["what"] == "bank skipped"]
    assert [line["path"] for line in skipped] == [str(path)]
    assert newest_bank(watched.folder).name == "good.safetensors"


def test_a_bank_with_an_older_time_is_taken(watched: Watched, tmp_path: Path) -> None:
    """As rsync -a and cp -p leave it: what arrived last counts, not what is dated last."""
    renamed(watched.bank, "old").save(tmp_path / "old.safetensors")
    os.utime(tmp_path / "old.safetensors", (1_000_000_000, 1_000_000_000))
    shutil.copy2(tmp_path / "old.safetensors", watched.folder / "old.safetensors")
    until(lambda: watched.taken == ["old"])


def test_a_touched_or_deleted_bank_changes_nothing(watched: Watched) -> None:
    """A new mode is not a new bank, and deleting one does not bring another back."""
    watched.takes("second")
    (watched.folder / "first.safetensors").chmod(0o600)
    (watched.folder / "second.safetensors").unlink()
    time.sleep(0.2)
    assert watched.taken == ["second"]


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"", 0, 1, "x"), RecursionError(), OSError(28, "No space"), MemoryError()]
)
def test_the_watch_survives_any_exception(error: Exception, watched: Watched) -> None:
    """It is counted, and a later good bank is taken."""
    watched.fails = error
    watched.save("bad")
    until(lambda: watched.watch.worker.faults.counts[type(error).__name__] == 1)
    watched.fails = None
    watched.takes("good")
    until(lambda: watched.watch.worker.trouble is None)


def test_a_refused_bank_is_no_fault(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    """The reason is logged."""
    watched.fails = OverflightError("no room")
    watched.save("bad")
    until(lambda: any(line["what"] == "bank refused" for line in log(capfd)))
    assert not watched.watch.worker.faults.counts


def test_one_flipped_byte_is_refused_and_a_later_bank_taken(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every byte of a bank's header in turn: refused or still a bank, never the end of the watch."""
    raw = bytearray(watched.save("flip").read_bytes())
    until(lambda: watched.taken == ["flip"])
    header = int.from_bytes(raw[:8], "little")
    for place in range(0, 8 + header, max(1, header // 40)):
        raw[place] ^= 0x80
        (watched.folder / f"x{place}.safetensors").write_bytes(raw)
        raw[place] ^= 0x80
    watched.takes("good")
    assert watched.watch.worker.trouble is None
