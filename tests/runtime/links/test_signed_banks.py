"""A flight that trusts a key, and banks over a real broker: only what the key signed is used."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight.peripherals import PeripheralConfig
from overflight.runtime.flight.run import FlightConfig, fly

if TYPE_CHECKING:
    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")
pytest.importorskip("cryptography")
Wait = Callable[..., bool]


def test_bank_set_takes_only_signed_banks(
    broker: Any,
    wait: Wait,
    colour_bundle: Bundle,
    colour_bank: LabelBank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unsigned, changed and replayed banks are answered on bank/state with the reason; a newer one is used."""
    from overflight.runtime.signatures.secret_key import SecretKey
    from overflight.runtime.signatures.terms import Terms
    from overflight.runtime.signatures.trust import trust_key
    from overflight.runtime.signing import sign_path

    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path / "keys"))
    key = SecretKey.make()
    (tmp_path / "k.pub").write_text(key.public.encode())
    trust_key(tmp_path / "k.pub")
    shutil.copytree(colour_bundle.directory, tmp_path / "bundle")
    sign_path(tmp_path / "bundle", key, Terms.make())

    def piece(name: str, counter: int) -> bytes:
        path = tmp_path / f"{name}.safetensors"
        LabelBank.make(msgspec.structs.replace(colour_bank.header, name=name), colour_bank.vectors).save(path)
        return sign_path(path, key, Terms.make(counter=counter)).read_bytes() + path.read_bytes()

    first, old, new = piece("first", 5), piece("old", 4), piece("new", 6)
    changed = new[:-1] + bytes([new[-1] ^ 1])
    sent = [(tmp_path / "new.safetensors").read_bytes(), changed, old, new, first]
    flying, done = threading.Event(), threading.Event()

    def send() -> None:
        flying.wait(20)
        for number, raw in enumerate(sent, 1):
            broker.publish("of/bank/set", raw)
            wait(lambda number=number: len(broker.topic("of/bank/state")) == number)
        done.set()

    sender = threading.Thread(target=send)
    sender.start()

    def watch(stream: Stream, observation: Observation) -> None:
        flying.set()
        if done.is_set():
            stream.stop()

    peripherals = PeripheralConfig(links=(f"{broker.uri}#accept=banks",), outbox=tmp_path / "outbox")
    with Overflight.load(tmp_path / "bundle", tmp_path / "first.safetensors") as overflight:
        config = FlightConfig(peripherals=peripherals)
        fly(overflight, "test://?fps=25&size=64x48", tmp_path / "flight", config, on_observation=watch)
        assert overflight.bank.header.name == "new"
    sender.join()
    states = [json.loads(payload) for payload in broker.topic("of/bank/state")]
    reasons = ("not signed", "changed after signing", "counter 4, lower than 5", None, "counter 5, lower than 6")
    assert len(states) == len(reasons)
    for state, reason in zip(states, reasons, strict=True):
        assert (state["error"] is None) == (reason is None)
        assert reason is None or reason in state["error"]
