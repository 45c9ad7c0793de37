"""Matching and deciding: the formulas, and "unknown".

Covers: runtime/decisions/decide.py.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bank import Label, LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher


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
