"""Label banks made to end a flight: each is refused with a reason, by every way in, and the bank in use stays."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bank import _encode
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import BankError, OverflightError
from overflight.runtime.flight.bank_watch import BankWatch
from overflight.runtime.flight.banks import Banks, prove
from overflight.runtime.flight.directory import Flight

pytest.importorskip("onnxruntime")
CASES = Path(__file__).parents[3] / "shared" / "cases" / "attacks"
DEEP = b'{"__metadata__":' + b"[" * 200_000 + b"]" * 200_000 + b"}"


def changed(bank: LabelBank, **header: object) -> bytes:
    """Encode a bank with other values, as a program without our checks would."""
    return _encode(msgspec.structs.replace(bank.header, **header), bank.vectors)


def flipped(bank: LabelBank) -> bytes:
    raw = bytearray(bank.raw)
    raw[raw.index(b"red")] = 0xE1
    return bytes(raw)


MADE: dict[str, Callable[[LabelBank], bytes]] = {
    "deep-json": lambda bank: struct.pack("<Q", len(DEEP)) + DEEP,
    "ghost-group": lambda bank: changed(bank, exclusive=("ghost",)),
    "huge-scale": lambda bank: changed(bank, logit_scale=1e308, logit_bias=-1e308),
    "large-scale": lambda bank: changed(bank, logit_scale=500.0),
    "huge-bias": lambda bank: changed(bank, logit_bias=1e300),
    "flipped-byte": flipped,
    "long-text": lambda bank: changed(
        bank, labels=(msgspec.structs.replace(bank.header.labels[0], text="x" * 1_000_000), *bank.header.labels[1:])
    ),
    "no-labels": lambda bank: changed(bank, labels=()),
    "nan-vectors": lambda bank: _encode(bank.header, np.full_like(bank.vectors, np.nan)),
    "empty": lambda bank: b"",
    "zeros": lambda bank: bytes(1000),
    "endless-header": lambda bank: struct.pack("<Q", 1 << 63) + b"{}",
}
FOUND = sorted(CASES.glob("*/*.safetensors"))


@pytest.fixture
def banks(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> Iterator[tuple[Banks, Overflight]]:
    overflight = Overflight.load(colour_bundle, colour_bank)
    flight = Flight.begin(tmp_path / "flight", "x", overflight)
    made = Banks(overflight)
    made.begin(flight)
    yield made, overflight
    flight.journal.close()
    assert [path.stem for path in (tmp_path / "flight" / "banks").iterdir()] == [colour_bank.sha256[:16]]


@pytest.mark.parametrize("name", MADE)
def test_a_hostile_bank_is_refused_and_the_bank_in_use_stays(
    name: str, banks: tuple[Banks, Overflight], colour_bank: LabelBank
) -> None:
    """As it arrives over HTTP and MQTT."""
    taker, overflight = banks
    with pytest.raises(OverflightError) as caught:
        taker.take(MADE[name](colour_bank))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert overflight.bank.sha256 == colour_bank.sha256


@pytest.mark.parametrize("name", MADE)
def test_a_hostile_bank_in_a_watched_folder_stops_nothing(
    name: str, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused without a fault of the watch, and a later bank is taken."""
    import time

    monkeypatch.setattr("overflight.runtime.flight.bank_watch.EVERY_S", 0.02)
    taken: list[str] = []
    folder = tmp_path / "banks"
    folder.mkdir()
    watch = BankWatch(folder, lambda bank: taken.append(bank.sha256))
    try:
        (folder / "hostile.safetensors").write_bytes(MADE[name](colour_bank))
        time.sleep(0.1)
        colour_bank.save(folder / "good.safetensors")
        deadline_s = time.monotonic() + 20
        while taken != [colour_bank.sha256]:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert not watch.worker.faults.counts
    finally:
        watch.close()


@pytest.mark.parametrize("path", FOUND or [Path("none")], ids=lambda path: path.parent.name)
def test_the_banks_of_the_attack(path: Path) -> None:
    """The files as they were found."""
    if not path.exists():
        pytest.skip("the files of the attack are not here")
    with pytest.raises(BankError):
        LabelBank.load(path)


def test_a_bank_that_validation_missed_fails_its_trial(colour_bank: LabelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the matcher raises is the bank's fault."""

    def fail(self: object, bank: LabelBank) -> None:
        raise IndexError("argmax of an empty sequence")

    monkeypatch.setattr("overflight.runtime.flight.banks.Decider.__init__", fail)
    with pytest.raises(BankError, match="a trial with this bank failed"):
        prove(colour_bank)
