"""Matching and deciding: the formulas, and "unknown".

Covers: runtime/decisions/decide.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Match, Matcher


def unit(*numbers: float) -> NDArray[np.float32]:
    vector = np.array(numbers, np.float32)
    vector /= np.linalg.norm(vector)
    return vector


def remade(bank: LabelBank, **changes: object) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, **changes), bank.vectors)


def test_the_score_is_the_sigmoid_of_the_scaled_cosine(colour_bank: LabelBank) -> None:
    """Scores of labels that exclude no other are independent and need not add up."""
    match = Matcher(colour_bank).match(unit(1, 0.5, 0))
    expected = 1 / (1 + np.exp(-(10 * match.cosines - 5)))
    np.testing.assert_allclose(match.scores, expected, rtol=1e-5)
    assert np.isnan(match.shares).all()


def test_an_exclusive_group_shares_one_whole(colour_bank: LabelBank) -> None:
    """Inside an exclusive group the shares add up to one; outside there are none."""
    labels = (
        Label("red", ("red",), group="warm"),
        Label("green", ("green",), group="warm"),
        Label("blue", ("blue",)),
    )
    match = Matcher(remade(colour_bank, labels=labels, exclusive=("warm",))).match(unit(1, 0.2, -1))
    assert match.shares[:2].sum() == pytest.approx(1, abs=1e-6)
    assert np.isnan(match.shares[2])


def test_a_softmax_tower_compares_all_its_labels(colour_bank: LabelBank) -> None:
    """CLIP's score means nothing but "which of these"."""
    match = Matcher(remade(colour_bank, activation="softmax")).match(unit(1, 0.2, -1))
    assert match.shares.sum() == pytest.approx(1, abs=1e-6)


def test_the_background_makes_a_frame_unknown(colour_bank: LabelBank) -> None:
    """Where "none of these" wins, no label is reported."""
    labels = (Label("red", ("red",)), Label("none", ("none",), background=True), Label("blue", ("blue",)))
    bank = remade(colour_bank, labels=labels)
    matcher, decider = Matcher(bank), Decider(bank)
    assert decider.decide(matcher.match(colour_bank.vectors[1])).label is None
    assert decider.decide(matcher.match(colour_bank.vectors[0])).label == "red"


def test_a_threshold_makes_a_weak_answer_unknown(colour_bank: LabelBank) -> None:
    """The best label must also reach its own threshold."""
    labels = tuple(Label(text, (text,), threshold=0.99) for text in ("red", "green", "blue"))
    bank = remade(colour_bank, labels=labels)
    matcher, decider = Matcher(bank), Decider(bank)
    assert decider.decide(matcher.match(colour_bank.vectors[0])).label == "red"
    assert decider.decide(matcher.match(unit(1, 0.9, 0.8))).label is None


def test_a_begun_label_ends_lower_than_it_began(colour_bank: LabelBank) -> None:
    """Between the two thresholds a label is not present, but still."""
    labels = tuple(Label(text, (text,), threshold=0.5) for text in ("red", "green", "blue"))
    bank = remade(colour_bank, labels=labels)
    score_045 = Matcher(bank).match(colour_bank.vectors[0])
    score_045.scores[:] = [0.45, 0.1, 0.1]
    verdict = Decider(bank).decide(score_045)
    assert (verdict.present, list(verdict.still)) == ({}, ["red"])


def test_only_the_best_of_an_exclusive_group_is_present(colour_bank: LabelBank) -> None:
    """However high the shares of the others."""
    labels = tuple(Label(text, (text,), group="colour", threshold=0.01) for text in ("red", "green", "blue"))
    bank = remade(colour_bank, labels=labels, exclusive=("colour",))
    verdict = Decider(bank).decide(Matcher(bank).match(unit(1, 0.95, -1)))
    assert list(verdict.present) == ["red"]


def test_a_best_label_without_a_lead_is_unknown(colour_bank: LabelBank) -> None:
    """The margin is a lead in score."""
    match = Matcher(colour_bank).match(unit(1, 0.95, -1))
    assert Decider(colour_bank, margin=0.5).decide(match).label is None
    assert Decider(colour_bank).decide(match).label == "red"


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_many_answers_are_decided_as_one_by_one(
    activation: Literal["sigmoid", "softmax"], threshold: float | None, margin: float
) -> None:
    """Groups, background, own thresholds and equal logits: the same label and the same scores, row by row."""
    random = np.random.default_rng(3)
    vectors = random.standard_normal((9, 8)).astype(np.float32)
    vectors[4] = vectors[3]  # two labels of one group, and two without, that always tie
    vectors[7] = vectors[6]
    groups = ("a", "a", None, "b", "b", None, None, None, "open")
    labels = tuple(
        Label(f"l{k}", (f"l{k}",), group=group, threshold=0.3 if k in (0, 5) else None, background=k == 5)
        for k, group in enumerate(groups)
    )
    header = BankHeader(
        schema=2, name="all", model="m", tower="t" * 64, activation=activation, logit_scale=1.5, logit_bias=-1.0,
        labels=labels, exclusive=("a", "b"), threshold=threshold,
    )  # fmt: skip
    bank = LabelBank.make(header, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    decider = Decider(bank, margin)
    found = random.standard_normal((400, 8)).astype(np.float32)
    matches = Matcher(bank).match_rows(found / np.linalg.norm(found, axis=1, keepdims=True))
    rows = zip(matches.cosines, matches.logits, matches.scores, matches.shares, strict=True)
    one_by_one = [decider.decide(Match(*row)) for row in rows]
    assert list(decider.decide_rows(matches)) == one_by_one
    assert len({decision.label for decision in one_by_one}) > 3
