"""Thresholds: what was promised about alarms holds on what was seen, and labelled frames are parted.

Covers: runtime/commands/thresholds.py.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bank import BankHeader, Label
from overflight.runtime.bundle import Bundle
from overflight.runtime.commands.thresholds import command
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.evaluation.thresholds import (
    ALARM_GAP_S,
    Example,
    Seen,
    _peaks,
    fit_background,
    fit_examples,
    judge,
    poisson_least,
    poisson_most,
    read_examples,
    read_flights,
)
from overflight.runtime.flight.run import fly


def random_bank(labels: int, width: int = 16, seed: int = 0) -> LabelBank:
    vectors = units(labels, width, seed)
    header = BankHeader(
        1, "random", "m", "c" * 64, "sigmoid", float(np.log(10)), -5.0,
        tuple(Label(f"label {i}", (f"label {i}",)) for i in range(labels)),
    )  # fmt: skip
    return LabelBank.make(header, vectors)


def units(count: int, width: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    units: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(20, 200))
def test_the_flights_themselves_give_no_more_alarms_than_asked_for(seed: int, rate: float) -> None:
    """Counted again with the new bank, alarm by alarm."""
    bank = random_bank(5)
    seen = Seen(np.arange(0, 600, 0.5), units(1200, 16, seed))
    fitted_bank, fitted = fit_background(bank, seen, rate)
    scores = judge(fitted_bank, seen.embeddings)
    for label, column, item in zip(fitted_bank.header.labels, scores.T, fitted, strict=True):
        assert label.threshold is not None
        heights = _peaks(seen.seconds, np.where(column >= label.threshold, column, 0.0))
        assert len(heights) == item.alarms or item.alarms == 0 == len(heights)
        assert item.alarms_per_hour_least is not None
        assert item.alarms_per_hour_most is not None
        assert item.alarms_per_hour_least <= len(heights) / seen.hours < item.alarms_per_hour_most <= rate


def test_the_promised_rate_holds_on_later_flights() -> None:
    """Of 300 flights of 4 hours each, at most about 5 % give more than the promised 2 alarms per hour later on."""
    random = np.random.default_rng(8)
    bank, broken = random_bank(1, 3), 0
    for _ in range(300):
        count = random.poisson(4 * 30)  # 30 possible alarms an hour, of which the threshold decides
        seconds = np.sort(random.uniform(0, 4 * 3600, count))
        seconds[[0, -1]] = 0, 4 * 3600
        vectors = random.normal(size=(count, 3)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made, _ = fit_background(bank, Seen(seconds, vectors), 2.0)
        later = random.normal(size=(20_000, 3)).astype(np.float32)
        later /= np.linalg.norm(later, axis=1, keepdims=True)
        cosines = later @ made.vectors[0]
        scores = 1 / (1 + np.exp(-(10 * cosines - 5)))
        share = float((scores >= (made.header.labels[0].threshold or 0)).mean())
        broken += 30 * share > 2.0
    assert 1 <= broken <= 24


@pytest.mark.parametrize(("rate", "hours"), [(1.0, 2.9), (0.5, 5.9), (0.5, 0.04), (1.0, 0.0)])
def test_too_few_hours_are_refused(rate: float, hours: float) -> None:
    """The message says how many hours it takes, and what these can show."""
    seen = Seen(np.linspace(0, hours * 3600, 19), units(19, 16, 1))
    with pytest.raises(UsageError, match=f"takes {2.9957 / rate:.2g} h of flight .* got {hours:.2g} h"):
        fit_background(random_bank(2), seen, rate)


def test_looks_next_to_each_other_are_one_alarm() -> None:
    """A label seen for a second alarms once."""
    seconds = np.array([0.0, 0.5, 1.0, 10.0, 10.5, 30.0])
    scores = np.array([0.3, 0.9, 0.4, 0.2, 0.1, 0.0])
    assert _peaks(seconds, scores).tolist() == [0.9, 0.2]
    assert ALARM_GAP_S == 2.0


@pytest.mark.parametrize(("count", "most"), [(0, 2.9957), (1, 4.7439), (5, 10.5130), (20, 29.0621)])
def test_the_promised_rate_is_the_exact_poisson_limit(count: int, most: float) -> None:
    """One-sided 95 %, as tables of the chi-square distribution give it (half its quantile at 2n + 2 degrees)."""
    assert poisson_most(count) == pytest.approx(most, abs=1e-3)


@pytest.mark.parametrize(("count", "least"), [(0, 0.0), (1, 0.0513), (5, 1.9701), (20, 13.2547)])
def test_the_lower_limit_is_exact_too(count: int, least: float) -> None:
    """Half the chi-square quantile of 5 % at 2n degrees."""
    assert poisson_least(count) == pytest.approx(least, abs=1e-3)


def test_examples_are_parted(colour_bank: LabelBank) -> None:
    """Red frames are red, and a label without examples keeps its threshold."""
    rng = np.random.default_rng(3)

    def like(row: int, noise: float) -> NDArray[np.float32]:
        vector = colour_bank.vectors[row] + rng.normal(0, noise, 3).astype(np.float32)
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit

    examples = [Example(like(0, 0.1), frozenset({"red"})) for _ in range(10)]
    examples += [Example(like(1, 0.5), frozenset()) for _ in range(10)]
    bank, fitted = fit_examples(colour_bank, examples)
    red, green, _ = fitted
    assert (red.precision, red.recall, red.positives) == (1.0, 1.0, 10)
    assert green.threshold is None
    assert bank.header.labels[1].threshold is None
    with pytest.raises(UsageError, match="label 'boat' is not in the bank; expected one of: blue, green, red"):
        fit_examples(colour_bank, [Example(like(0, 0), frozenset({"boat"}))])


def test_what_could_not_be_reported_counts_for_nothing(colour_bank: LabelBank) -> None:
    """A label that background beats has no score, as in flight."""
    labels = colour_bank.header.labels
    header = msgspec.structs.replace(
        colour_bank.header, labels=(labels[0], msgspec.structs.replace(labels[1], background=True), labels[2])
    )
    bank = LabelBank.make(header, colour_bank.vectors)
    scores = judge(bank, bank.vectors[1:2])
    assert scores[0, 0] == scores[0, 2] == 0


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", "frame,text\n1,x\n", "a.csv:2: expected the columns"),
        ("a.csv", "", "holds no labelled frame"),
        ("a.jsonl", '{"frame": 1, "label": "x"}\nnonsense\n', "a.jsonl:2: not a JSON object"),
        ("missing.csv", None, "expected CSV or JSONL"),
    ],
)
def test_a_torn_example_file_is_one_line(tmp_path: Path, name: str, content: str | None, error: str) -> None:
    """With the line's number."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=error):
        read_examples(tmp_path / name, lambda _: np.ones(3, np.float32))


def test_the_command_makes_a_bank_that_is_silent_over_what_it_saw(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """A flight over background, a bank fitted to it, the same flight again: every frame is unknown."""
    pytest.importorskip("onnxruntime")
    bank = tmp_path / "bank.safetensors"
    colour_bank.save(bank)
    where = "test://?frames=50&fps=0&size=64x48"
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(overflight, where, tmp_path / "first")
        before = [observation.label for observation in overflight.stream(where)]
    runner = CliRunner()
    refused = runner.invoke(command, [str(bank), "--flight", str(tmp_path / "first"), "-o", str(tmp_path / "a")])
    assert isinstance(refused.exception, UsageError)
    assert "takes 3 h of flight" in str(refused.exception)
    rate = str(3.0 / read_flights([tmp_path / "first"], colour_bank).hours)
    made = runner.invoke(
        command,
        [str(bank), "--flight", str(tmp_path / "first"), "--rate", rate, "-o", str(tmp_path / "fitted.safetensors")],
    )
    assert made.exit_code == 0, made.output
    assert ", 0 alarms in " in made.output
    assert any(before)
    with Overflight.load(colour_bundle, tmp_path / "fitted.safetensors") as overflight:
        assert not any(observation.label for observation in overflight.stream(where))
    (tmp_path / "seen.csv").write_text("frame,label\n1,red\n2,red\n3,\n")
    arguments = ["--examples", str(tmp_path / "seen.csv"), "--flight", str(tmp_path / "first"), "--json"]
    fitted = runner.invoke(command, [str(bank), *arguments, "-o", str(tmp_path / "b.safetensors")])
    assert fitted.exit_code == 0, fitted.output
    assert {item["label"] for item in msgspec.json.decode(fitted.output)} == {"red", "green", "blue"}
    foreign = LabelBank.make(msgspec.structs.replace(colour_bank.header, tower="d" * 64), colour_bank.vectors)
    with pytest.raises(OverflightError, match="flown with"):
        read_flights([tmp_path / "first"], foreign)
