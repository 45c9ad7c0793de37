"""The device's account joins the flight: power, temperatures, and what held it back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight import run as run_module
from overflight.runtime.flight.device_log import DeviceLog
from overflight.runtime.flight.journal_reader import read_device
from overflight.runtime.flight.run import fly

pytest.importorskip("onnxruntime")


def test_a_flight_on_a_board_records_what_the_board_reports(
    tree: Callable[[str], Path],
    colour_bundle: Bundle,
    colour_bank: LabelBank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readings are in the journal, energy and hindrances in the flight's record."""
    root = tree("orin-nano-jetpack-6.2")
    monkeypatch.setattr("overflight.runtime.flight.device_log.EVERY_S", 0.05)
    monkeypatch.setattr(run_module, "DeviceLog", lambda write: DeviceLog(write, root))
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        record = fly(overflight, "test://?frames=30&fps=50&size=64x48", tmp_path / "flight")
    readings = read_device(tmp_path / "flight" / "journal.sqlite")
    assert len(readings) >= 3
    assert readings[0].power_mw
    assert record.device is not None
    assert record.device.readings == len(readings)
    assert record.device.joules is not None
    assert record.device.joules > 0


def test_off_the_device_nothing_is_recorded(tmp_path: Path) -> None:
    """A laptop has no rails to read, and starts no thread to find out."""
    before = set(threading.enumerate())
    log = DeviceLog(lambda utc_ns, reading: pytest.fail("there is no device"), tmp_path)
    assert set(threading.enumerate()) == before
    log.close()
