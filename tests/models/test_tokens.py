"""Texts become SigLIP's 64 ids, exactly as transformers makes them."""

from __future__ import annotations

import numpy as np
import pytest

from overflight.models import tokens, vocabulary

TEXTS = [
    "Flooded road",
    "  A satellite   photo of: storage-tanks!  ",
    "many planes are parked next to a long building in an airport .",
    "x" * 400,
    "",
    "_under_score_ (sub-meter) 50 %",
    "Überflutung",
]


def test_canonical_text_is_lower_without_punctuation_or_double_space() -> None:
    """The rule SigLIP was trained under."""
    assert tokens.canonicalise("  A Photo,\tof the_Beach!! ") == "a photo of thebeach"


def test_ids_are_padded_to_64_with_the_end_id() -> None:
    """Short rows end in ones, long rows are cut but still end."""
    assert tokens.pad([5, 6]) == [5, 6] + [1] * 62
    assert len(tokens.pad(list(range(2, 100)))) == 64
    assert tokens.pad(list(range(2, 100)))[-1] == 1


def test_ids_equal_transformers() -> None:
    """Ours and SiglipTokenizer's agree on every id (a text that spells `</s>` is theirs alone)."""
    pytest.importorskip("sentencepiece")
    transformers = pytest.importorskip("transformers")
    folder = vocabulary.HERE / "default"
    theirs = transformers.SiglipTokenizer.from_pretrained(folder)
    coded = theirs(TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="np")
    ours = tokens.encode(tokens.load_processor(folder / "spiece.model"), TEXTS)
    np.testing.assert_array_equal(coded["input_ids"], ours)


def test_no_committed_name_is_an_open_vocabulary_text() -> None:
    """The sixty texts are reserved for judging."""
    reserved = vocabulary.reserve()
    assert len(reserved) == 60
    assert not reserved & {tokens.canonicalise(name) for name in vocabulary.read_names()}


def test_composed_phrases_are_reproducible() -> None:
    """One seed, one list."""
    names = vocabulary.read_names()
    assert vocabulary.compose(names, 5000, 3) == vocabulary.compose(names, 5000, 3)
