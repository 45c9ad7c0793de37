"""The stream: newest frame, honest drops, no conclusion from a bad frame, a camera that comes back.

Covers: runtime/frame.py, runtime/observe.py, runtime/sources/capture.py.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime import LabelBank, Overflight
from overflight.runtime import stream as stream_module
from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import EngineInfo
from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.records import Observation
from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")


@pytest.fixture
def overflight(colour_bundle: Bundle, colour_bank: LabelBank) -> Iterator[Overflight]:
    with Overflight.load(colour_bundle, colour_bank) as loaded:
        yield loaded


class SlowEngine:
    """An engine that takes its time, in front of a real one."""

    info = EngineInfo("onnxruntime-cpu", "fp32", "slow", "0", "0" * 64)
    side, width = 32, 3

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return np.array([[1, 0, 0]] * len(frames), np.float32)

    def close(self) -> None:
        pass


class NanEngine(SlowEngine):
    """An engine that answers nonsense every second time."""

    calls = 0

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        return np.full((1, 3), np.nan if self.calls % 2 else 1.0, np.float32)


class Feed:
    """A source made of a list of things to deliver: frames, or errors to raise."""

    name = "feed"

    def __init__(self, script: list[NDArray[np.uint8] | SourceError], *, live: bool, count: int | None = None) -> None:
        self.live = live
        self.count = count
        self._script = script

    def frames(self) -> Iterator[Frame]:
        for number, item in enumerate(self._script):
            if isinstance(item, SourceError):
                raise item
            time.sleep(0.005 if self.live else 0)
            yield Frame(item, number, time.monotonic_ns())

    def close(self) -> None:
        pass


def scene(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 200, (48, 64, 3), np.uint8)


def observed(stream: Stream, most: int = 10_000) -> list[Observation]:
    try:
        return [sight.observation for sight in itertools.islice(stream.results(), most)]
    finally:
        stream.close()


def with_source(monkeypatch: pytest.MonkeyPatch, overflight: Overflight, *sources: Feed) -> Stream:
    following = iter(sources)
    monkeypatch.setattr(stream_module, "open_source", lambda _: next(following))
    return Stream("feed", overflight.observer)


def test_every_frame_of_a_file_is_observed_in_order(overflight: Overflight) -> None:
    """A recording waits for the engine."""
    observations = list(overflight.stream("test://?frames=40&fps=0&size=64x48"))
    assert [observation.frame for observation in observations] == list(range(40))


def test_a_slow_engine_sees_the_newest_frame(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """The age stays below two engine times and a frame, and what was skipped is counted."""
    slow = Overflight(colour_bundle, SlowEngine(0.1), colour_bank)
    stream = Stream("test://?frames=60&fps=50&size=64x48", slow.observer)
    observations = observed(stream)
    assert 5 <= len(observations) <= 20
    assert stream.dropped["newer-frame"] + len(observations) == 60
    ages_ms = [observation.age_ns / 1e6 for observation in observations]
    assert np.median(ages_ms) < 2 * 100 + 20
    for earlier, later in itertools.pairwise(observations):
        assert later.frame - earlier.frame - 1 == sum(later.dropped.values())


def test_no_conclusion_from_a_bad_frame(monkeypatch: pytest.MonkeyPatch, overflight: Overflight) -> None:
    """Black, torn and blown-out frames are named in the next observation and never observed."""
    black, white, torn = np.zeros_like(scene(0)), np.full_like(scene(0), 255), scene(9)
    torn[24:] = torn[24]
    feed = Feed([scene(1), black, white, torn, scene(2)], live=False)
    observations = observed(with_source(monkeypatch, overflight, feed))
    assert [observation.frame for observation in observations] == [0, 4]
    assert observations[1].dropped == {"black": 1, "blown-out": 1, "torn": 1}


def test_nan_from_the_engine_ends_no_flight(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """The frame is lost, by name; the next one is observed."""
    broken = Overflight(colour_bundle, NanEngine(0), colour_bank)
    stream = Stream("test://?frames=10&fps=0&size=64x48", broken.observer)
    observations = observed(stream)
    assert len(observations) == 5
    assert stream.dropped == {"engine-failed": 5}


def test_a_camera_that_fails_is_opened_again(monkeypatch: pytest.MonkeyPatch, overflight: Overflight) -> None:
    """Observations go on after a disconnection, and the reconnection is on record."""
    monkeypatch.setattr("overflight.runtime.sources.capture.BACKOFF_FIRST_S", 0.01)
    first = Feed([scene(1), SourceError("gone")], live=True)
    second = Feed([SourceError("still gone")], live=True)
    third = Feed([scene(seed) for seed in range(2, 6)], live=True, count=4)
    stream = with_source(monkeypatch, overflight, first, second, third)
    observations = observed(stream)
    assert len(observations) >= 2
    assert stream.dropped["reconnect"] == 2


def test_a_reader_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, overflight: Overflight) -> None:
    """A driver that never returns costs one thread, not the flight."""
    released = threading.Event()

    class Hanging(Feed):
        def frames(self) -> Iterator[Frame]:
            yield Frame(scene(1), 0, time.monotonic_ns())
            released.wait()

    monkeypatch.setattr("overflight.runtime.sources.capture.STALL_S", 0.2)
    stream = with_source(monkeypatch, overflight, Hanging([], live=True), Feed([scene(7)] * 1, live=True, count=1))
    observations = observed(stream)
    assert len(observations) == 2
    assert stream.dropped["stalled"] == 1
    released.set()


def test_a_bank_is_swapped_between_two_frames(overflight: Overflight, colour_bank: LabelBank) -> None:
    """Each observation names the bank that answered; a foreign bank is refused and the old one stays."""
    import msgspec

    renamed = LabelBank.make(msgspec.structs.replace(colour_bank.header, name="again"), colour_bank.vectors)
    foreign = LabelBank.make(msgspec.structs.replace(colour_bank.header, tower="d" * 64), colour_bank.vectors)
    banks = []
    for observation in overflight.stream("test://?frames=6&fps=0&size=64x48"):
        banks.append(observation.bank)
        if observation.frame == 2:
            overflight.use(renamed)
        if observation.frame == 4:
            with pytest.raises(UsageError):
                overflight.use(foreign)
    assert banks == [colour_bank.sha256[:16]] * 3 + [renamed.sha256[:16]] * 3


def test_classify_takes_pixels_and_frames_alike(overflight: Overflight, tmp_path: Path) -> None:
    """Pixels are RGB; a frame knows its own order."""
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    assert overflight.classify(red).label == "red"
    bgr = np.ascontiguousarray(red[..., ::-1])
    assert overflight.classify(Frame(bgr, 3, time.monotonic_ns(), order="bgr")).label == "red"
    np.testing.assert_allclose(np.linalg.norm(overflight.embed([red, bgr]), axis=1), 1, atol=1e-5)
