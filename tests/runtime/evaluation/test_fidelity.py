"""Fidelity and its gate."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.engines.record import Fidelity
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.fidelity import _reported, judge, measure


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def cloud(seed: int, count: int = 200, width: int = 32) -> NDArray[np.float32]:
    """Unit embeddings in a cone, as a tower gives them."""
    random = np.random.default_rng(seed)
    return unit(random.normal(size=width) * 2 + random.normal(size=(count, width)))


def bank_of(vectors: NDArray[np.float32], *labels: Label, exclusive: tuple[str, ...] = ()) -> LabelBank:
    header = BankHeader(1, "test", "model", "c" * 64, "sigmoid", float(np.log(10)), -5.0, labels, exclusive)
    return LabelBank.make(header, vectors)


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_an_exact_engine_is_perfect(seed: int) -> None:
    """The reference held against itself shows no loss and passes the strictest gate."""
    rows = cloud(seed)
    bank = bank_of(cloud(seed + 1, 5), *(Label(str(i), (str(i),)) for i in range(5)))
    found = measure(rows, rows, [bank], frames="f")
    assert found.cosine_min > 0.999999
    assert found.variance_kept == 1
    assert found.agreement[0].top1 == 1
    assert found.agreement[0].flips == 0
    assert judge(found, "fp32").passed


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.05, 0.5))
def test_more_noise_is_never_more_faithful(seed: int, noise: float) -> None:
    """Adding twice the same noise lowers every figure."""
    rows = cloud(seed)
    error = np.random.default_rng(seed).normal(size=rows.shape) * noise / np.sqrt(rows.shape[1])
    little, much = (measure(rows, unit(rows + error * factor)) for factor in (1, 2))
    assert much.cosine_mean < little.cosine_mean
    assert much.cosine_min < little.cosine_min
    assert much.variance_kept < little.variance_kept


def test_an_engine_that_answers_the_same_for_every_frame_fails_even_with_a_high_cosine() -> None:
    """Embeddings in a narrow cone: the mean has a high cosine with all of them, but keeps no variance."""
    random = np.random.default_rng(0)
    rows = unit(np.ones(64) * 10 + 0.3 * random.normal(size=(200, 64)))
    constant = unit(np.repeat(rows.mean(axis=0, keepdims=True).astype(np.float64), 200, axis=0))
    found = measure(rows, constant)
    assert found.cosine_mean > 0.995
    verdict = judge(found, "int8")
    assert not verdict.passed
    assert "variance_kept" in verdict.reasons[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_numbers_fail(value: float) -> None:
    """One frame in two hundred answered with NaN is enough."""
    rows = cloud(0)
    broken = rows.copy()
    broken[17, 3] = value
    found = measure(rows, broken, [bank_of(cloud(1, 3), *(Label(t, (t,)) for t in "abc"))])
    assert found.cosine_min == -1
    assert found.agreement[0].top1 == pytest.approx(199 / 200)
    assert not judge(found, "int8").passed


def test_agreement_counts_best_labels_and_accuracy_counts_right_ones() -> None:
    """Of four frames the engine answers two otherwise, one of them wrongly before, rightly now."""
    labels = unit(np.eye(3))
    bank = bank_of(labels, Label("wet meadow", ("m",)), Label("road", ("r",)), Label("roof", ("f",)))
    reference, answers = labels[[0, 1, 2, 0]], labels[[0, 1, 0, 2]]
    found = measure(reference, answers, [bank], truth=["WetMeadow", "Road", "wet_meadow", None]).agreement[0]
    assert found.top1 == 0.5
    assert found.reference_accuracy == pytest.approx(2 / 3)
    assert found.accuracy == pytest.approx(1.0)
    assert found.flips == pytest.approx(4 / 6)


def test_flips_follow_thresholds_and_background() -> None:
    """A label below its threshold, or behind a background label, is no report, so nothing can flip there."""
    labels = unit(np.eye(3))
    bank = bank_of(
        labels, Label("roof", ("r",), threshold=0.99999), Label("sky", ("s",), background=True), Label("car", ("c",))
    )
    near = unit(np.array([[1.0, 0.0, 0.01], [0.0, 1.0, 0.2], [0.0, 0.2, 1.0]]))
    moved = unit(np.array([[1.0, 0.0, 0.02], [0.0, 1.0, 0.9], [0.0, 1.0, 0.9]]))
    assert measure(near, near, [bank]).agreement[0].flips == 0
    assert measure(near, moved, [bank]).agreement[0].flips == 1.0  # only the third frame's car was ever reported


def test_fidelity_reports_what_a_flight_would() -> None:
    """One decision rule: on independent labels and in an exclusive group, row by row, as the flight decides."""
    random = np.random.default_rng(4)
    vectors, frames = unit(random.normal(size=(6, 8))), unit(random.normal(size=(300, 8)))
    labels = (
        *(Label(t, (t,), threshold=0.5) for t in "ab"),
        *(Label(t, (t,), group="g", threshold=0.2) for t in "cd"),
        Label("e", ("e",), background=True),
        Label("f", ("f",)),
    )
    header = msgspec.structs.replace(bank_of(vectors, *labels, exclusive=("g",)).header, logit_scale=1.5, logit_bias=0)
    used = LabelBank.make(header, vectors)
    matcher, decider = Matcher(used), Decider(used)
    flown = [set(decider.decide(matcher.match(frame)).present) for frame in frames]
    reports = _reported(decider, [matcher.match(frame) for frame in frames])
    assert [{label.text for label, on in zip(labels, row, strict=True) if on} for row in reports] == flown
    assert any("c" in seen or "d" in seen for seen in flown)
    moved = unit(frames + 0.3 * random.normal(size=frames.shape))
    shown = [set(decider.decide(matcher.match(frame)).present) for frame in moved]
    pairs = list(zip(flown, shown, strict=True))
    flips = sum(len(a ^ b) for a, b in pairs) / sum(len(a | b) for a, b in pairs)
    assert measure(frames, moved, [used]).agreement[0].flips == pytest.approx(flips)


def test_the_gate_names_what_falls_short() -> None:
    """Each shortfall is one reason with figure and limit."""
    found = Fidelity(100, 0.99, 0.97, 0.9, 0.9, (), "f")
    verdict = judge(found, "int8")
    assert not verdict.passed
    assert verdict.reasons == ("cosine_mean 0.9900 is below 0.995", "cosine_p1 0.9700 is below 0.98")
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=type(verdict)) == verdict


@pytest.mark.parametrize(
    ("samples", "flipped", "passes"), [(64, 1, True), (64, 2, False), (300, 3, True), (300, 4, False)]
)
def test_one_frame_fails_nothing_that_too_few_frames_cannot_resolve(samples: int, flipped: int, passes: bool) -> None:
    """At one in a hundred, one of 64 passes and two do not; of 300, three and four."""
    from overflight.runtime.engines.record import Agreement

    seen = Agreement("b", "0", 1 - flipped / samples, 0.0)
    assert judge(Fidelity(samples, 0.999, 0.999, 0.99, 0.99, (seen,), "f"), "int8").passed == passes


def test_different_shapes_are_refused() -> None:
    """A comparison of other frames is no comparison."""
    with pytest.raises(UsageError, match="same frames"):
        measure(cloud(0), cloud(0, 199))
