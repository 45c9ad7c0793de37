"""Pace: fewer frames where fewer will do, stamps that reach back to the exposure, a gate that knows its price.

Covers: runtime/filters/similarity.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.filters.pace import Pace, Pacer
from overflight.runtime.filters.similarity import AUDIT, SimilarityFilter
from overflight.runtime.frame import Frame
from overflight.runtime.stream import Stream

PIXELS = np.zeros((2, 2, 3), np.uint8)
SCENE = np.random.default_rng(0).integers(40, 200, (64, 64, 3), np.uint8)


def camera(fps: float, seconds: float, jitter: float = 0.0) -> Iterator[Frame]:
    rng = np.random.default_rng(1)
    for number in range(int(fps * seconds)):
        yield Frame(PIXELS, number, int((number / fps + rng.uniform(-jitter, jitter) / fps) * 1e9) + 10**12)


@settings(max_examples=30)
@given(st.sampled_from([10.0, 25.0, 29.97, 60.0]), st.floats(0.5, 60), st.floats(0, 0.09))
def test_no_more_frames_than_asked_for(fps: float, wanted: float, jitter: float) -> None:
    """And not many fewer: jitter costs no second frame."""
    pacer = Pacer(Pace(fps=wanted))
    kept = sum(pacer.passes(frame) is None for frame in camera(fps, 20, jitter))
    assert 20 * min(wanted, fps) * 0.95 - 2 <= kept <= 20 * min(wanted, fps) + 2


def test_a_duty_cycle_rests() -> None:
    """The first two of every ten seconds are looked at."""
    pacer = Pacer(Pace(duty=(2, 10)))
    looked = [frame.captured_ns // 10**9 - 1000 for frame in camera(10, 30) if pacer.passes(frame) is None]
    assert sorted(set(looked)) == [0, 1, 10, 11, 20, 21]


def test_a_recording_is_paced_by_its_own_time() -> None:
    """However fast it is read."""
    pacer = Pacer(Pace(fps=1))
    frames = [Frame(PIXELS, number, number, media_ns=number * 40_000_000) for number in range(250)]
    assert sum(pacer.passes(frame) is None for frame in frames) in {10, 11}


@pytest.mark.parametrize(("every", "busy_s"), [(2, 0.0), (4, 0.0), (10, 0.0), (2, 0.2), (4, 0.2)])
def test_a_slower_pace_divides_the_rate_that_was_usual(every: int, busy_s: float) -> None:
    """Also where the engine, not the camera, sets the rate: the next frame at once would be no division at all."""
    pacer = Pacer(Pace())
    taken: dict[int, list[float]] = {1: [], every: []}
    free_s, now = 0.0, 1
    for frame in camera(30, 120):
        at_s = frame.captured_ns / 1e9 - 1000
        if at_s >= 60 and now == 1:
            pacer.slow_down(now := every)
        if at_s < free_s:  # the engine is busy, the frame is replaced by a newer one
            continue
        if pacer.passes(frame) is None:
            taken[now].append(at_s)
            free_s = at_s + busy_s
    assert len(taken[every]) == pytest.approx(len(taken[1]) / every, rel=0.1)


def test_a_flight_that_begins_slowed_down_measures_its_rate_first() -> None:
    """A board that is hot before its first frame."""
    pacer = Pacer(Pace())
    pacer.slow_down(10)
    assert sum(pacer.passes(frame) is None for frame in camera(30, 20)) == pytest.approx(60, abs=2)


def test_full_pace_comes_back_and_pauses_are_no_intervals() -> None:
    """After a lost camera the usual rate is still known."""
    pacer = Pacer(Pace())
    frames = list(camera(10, 40))
    for frame in [*frames[:100], *frames[300:]]:
        assert pacer.passes(frame) is None
    pacer.slow_down(2)
    later = [Frame(PIXELS, n, 10**12 + 41 * 10**9 + n * 10**8) for n in range(100)]
    assert sum(pacer.passes(frame) == "governed" for frame in later) == pytest.approx(50, abs=2)
    pacer.slow_down(1)
    again = [Frame(PIXELS, n, 10**12 + 60 * 10**9 + n * 10**8) for n in range(100)]
    assert all(pacer.passes(frame) is None for frame in again)


def test_latency_sets_the_stamps_back() -> None:
    """Both clocks, by the same time; a recording without a wall clock keeps none."""
    pacer = Pacer(Pace(latency_ms=80))
    dated = pacer.date(Frame(PIXELS, 0, 10**12, 10**18))
    assert (dated.captured_ns, dated.captured_utc_ns) == (10**12 - 80_000_000, 10**18 - 80_000_000)
    assert pacer.date(Frame(PIXELS, 0, 10**12)).captured_utc_ns is None


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"duty": (20.0, 10.0)}, {"latency_ms": -1.0}])
def test_a_pace_that_cannot_be_kept_is_refused(wrong: dict[str, float]) -> None:
    """With the option's name."""
    with pytest.raises(UsageError, match="--"):
        Pace(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected ON/PERIOD"):
        Pace.parse_duty("often")


def test_a_hovering_camera_is_judged_once_in_a_while() -> None:
    """Noise is no change; one small thing that appears is."""
    gate, rng = SimilarityFilter(6), np.random.default_rng(2)
    judged = []
    for number in range(100):
        noisy = (SCENE + rng.normal(0, 5, SCENE.shape)).clip(0, 255).astype(np.uint8)
        if number >= 60:
            noisy[16:24, 40:48] = 255
        if not gate.skips(noisy):
            judged.append(number)
            gate.evaluated("field")
    assert judged[:3] == [0, AUDIT, 2 * AUDIT]
    assert 60 in judged
    assert gate.report.seen == 100
    assert gate.report.skipped == 100 - len(judged)
    assert gate.report.agreement == 1.0


def test_a_gate_admits_where_it_was_wrong() -> None:
    """The agreement is measured on frames that it would have skipped."""
    gate = SimilarityFilter(255)
    for number in range(101):
        if not gate.skips(SCENE):
            gate.evaluated("a" if number < 50 else "b")
    report = gate.report
    assert (report.audited, report.agreed) == (10, 9)
    assert report.skipped_share == pytest.approx(90 / 101)


def test_the_stream_keeps_the_pace_and_counts_what_it_passed(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """Passed frames are named; ages hold the latency."""
    pytest.importorskip("onnxruntime")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        stream = Stream("test://?frames=50&fps=50&size=64x48", overflight.observer, Pace(fps=10, latency_ms=500))
        seen = [sight.observation for sight in stream.results()]
        stream.close()
        assert 5 <= len(seen) <= 13
        assert stream.skipped["fps"] + stream.dropped["newer-frame"] + len(seen) == 50
        assert min(observation.age_ns for observation in seen) > 500e6
        still = Stream("test://?frames=50&fps=0&size=64x48&faults=freeze@1:49", overflight.observer, Pace(similar=3))
        assert len(list(still.results())) == 5
        assert still.similarity is not None
        assert still.similarity.report.skipped == still.skipped["similar"] == 45


def test_the_gate_costs_little() -> None:
    """A small part of a millisecond of processor time at 256 px, or it would not be worth asking."""
    large, gate = np.zeros((256, 256, 3), np.uint8), SimilarityFilter(3)
    gate.skips(large)
    gate.evaluated(None)
    began = time.thread_time_ns()
    for _ in range(100):
        gate.skips(large)
    assert (time.thread_time_ns() - began) / 100 < 1e6
