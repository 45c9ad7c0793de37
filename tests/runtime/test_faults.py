"""Faults: a bad day in one flight, every fault named, no conclusion from a bad frame.

Covers: runtime/sources/testcard.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.flight.directory import JOURNAL, read_record
from overflight.runtime.flight.journal_reader import read_observations
from overflight.runtime.flight.run import fly
from overflight.runtime.sources.testcard import Fault, TestCard

pytest.importorskip("onnxruntime")
FAULTS = (
    "stall@50:2.5s,freeze@80:20,torn@120,black@130:5,white@140,disconnect@160:0.3s,resize@190:96x80,"
    "burst@210:30,clock@250:+3600s"
)


@pytest.mark.parametrize(
    "faults",
    [
        "fire@3",
        "stall",
        "stall@x",
        "stall@3:5",
        "torn@1:x",
        "resize@3:0x4",
        "clock@3:3600s",
        "resize@2:9999999x9999999",
    ],
)
def test_a_fault_that_is_not_understood_is_refused_in_one_line(faults: str) -> None:
    """The message says what was expected."""
    with pytest.raises(UsageError, match="expected test://") as caught:
        TestCard.parse(f"test://?faults={faults}")
    assert "\n" not in str(caught.value)


def test_a_fault_has_a_usual_measure() -> None:
    """``torn@160`` is one frame, ``clock@9`` an hour."""
    assert Fault.parse("torn@160") == Fault("torn", 160, length=1)
    assert Fault.parse("clock@9") == Fault("clock", 9, seconds=3600)
    assert Fault.parse("resize@2:640x480") == Fault("resize", 2, size=(640, 480))


def test_each_fault_spoils_what_it_says() -> None:
    """Pixels, sizes and clocks, frame by frame."""
    card = TestCard.parse(
        "test://?frames=40&fps=0&size=64x48&faults=freeze@5:3,torn@10,black@12:2,white@15,resize@20:32x32,clock@30:-60s"
    )
    frames = list(card.frames())
    for number in (5, 6, 7):
        assert np.array_equal(frames[number].pixels, frames[4].pixels)
    assert not np.array_equal(frames[8].pixels, frames[4].pixels)
    assert (frames[10].pixels[-10:] == frames[10].pixels[-1]).all()
    assert [int(frames[n].pixels.max()) for n in (12, 13)] == [0, 0]
    assert frames[15].pixels.min() == 255
    assert {frame.pixels.shape for frame in frames[20:]} == {(32, 32, 3)}
    step_s = ((frames[30].captured_utc_ns or 0) - (frames[29].captured_utc_ns or 0)) / 1e9
    assert step_s == pytest.approx(-60, abs=1)


def test_a_disconnected_card_goes_on_where_it_was() -> None:
    """While it is away it cannot be opened."""
    card = TestCard.parse("test://?frames=6&fps=0&size=8x8&faults=disconnect@2:0.2s")
    seen: list[int] = []
    for _ in range(3):
        try:
            for frame in card.frames():
                seen.append(frame.number)  # noqa: PERF401 - what came before the failure counts
        except SourceError:
            time.sleep(0.15)
    assert seen == [0, 1, 3, 4, 5]


def test_a_burst_arrives_at_once() -> None:
    """As from a network that held its packets back."""
    frames = list(TestCard.parse("test://?frames=30&fps=50&size=8x8&faults=burst@5:20").frames())
    assert frames[24].captured_ns - frames[5].captured_ns < 50e6
    assert frames[5].captured_ns - frames[0].captured_ns > 80e6


def test_every_fault_in_one_flight(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is named in the record, decisions go on to the last frame, and no bad frame was observed."""
    monkeypatch.setattr("overflight.runtime.sources.capture.BACKOFF_FIRST_S", 0.1)
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        record = fly(overflight, f"test://?frames=300&fps=50&size=64x48&faults={FAULTS}", tmp_path / "flight")
    assert {
        "stalled", "repeated", "frozen", "torn", "black", "blown-out", "reconnect", "resized", "newer-frame",
        "clock-jump",
    } == set(record.dropped)  # fmt: skip
    assert (record.dropped["black"], record.dropped["blown-out"], record.dropped["torn"]) == (5, 1, 1)
    assert record.dropped["frozen"] >= 10
    seen = {observation.frame: observation for observation in read_observations(tmp_path / "flight" / JOURNAL)}
    assert not set(seen) & {*range(80, 100), 120, *range(130, 135), 140, 160}
    assert max(seen) >= 297
    assert read_record(tmp_path / "flight").ended_because == "source ended"
    after = {frame: set(observation.dropped) for frame, observation in seen.items() if observation.dropped}
    for frame, reason in [
        (50, "stalled"),
        (100, "frozen"),
        (121, "torn"),
        (135, "black"),
        (141, "blown-out"),
        (161, "reconnect"),
        (190, "resized"),
        (250, "clock-jump"),
    ]:
        assert any(reason in after.get(later, ()) for later in range(frame, frame + 10)), (frame, reason)
