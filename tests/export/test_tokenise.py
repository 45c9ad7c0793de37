"""Tokenising gives the reference's ids, tells what was cut, and what the vocabulary cannot spell.

Covers: export/text_cleaning.py.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.export.text_cleaning import canonicalise
from overflight.export.tokenise import Tokeniser
from overflight.runtime.bundle import Family, Tokenising
from overflight.runtime.errors import BundleError

pytest.importorskip("tokenizers")
pytest.importorskip("sentencepiece")

FIXTURES = Path(__file__).parent / "fixtures"
KINDS: tuple[Family, ...] = get_args(Family)
CONTEXT = {"siglip": 64, "siglip2": 64, "clip": 77}


def read(kind: Family, directory: Path | None = None, *, vocabulary: int = 1000) -> Tokeniser:
    return Tokeniser.read(directory or FIXTURES / kind, Tokenising(kind, CONTEXT[kind], vocabulary))


def copy(kind: Family, directory: Path, **config: Any) -> Path:
    """Copy a tokenizer with another tokenizer_config.json."""
    copied = Path(shutil.copytree(FIXTURES / kind, directory / kind))
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_golden_ids(kind: Family) -> None:
    """Every id, the padding included, is what transformers answered for the committed tokenizers."""
    golden = json.loads((FIXTURES / kind / "golden.json").read_text())
    ids = read(kind).encode([row["text"] for row in golden])
    assert ids.dtype == np.int64
    assert ids.shape == (len(golden), CONTEXT[kind])
    for row, got in zip(golden, ids.tolist(), strict=True):
        assert got == row["ids"], row["text"]


def test_siglip_is_padded_to_exactly_64_with_id_1() -> None:
    """The tower pools position 63: whatever the text, there are 64 ids and the last are </s>."""
    ids = read("siglip").encode(["river", "a remote sensing image of dense residential"])
    assert ids.shape == (2, 64)
    assert (ids[:, 40:] == 1).all()


def test_no_texts_are_no_rows() -> None:
    """An empty list keeps its second dimension."""
    assert read("siglip").encode([]).shape == (0, 64)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=120))
def test_encoding_is_never_longer_than_the_context(kind: Family, text: str) -> None:
    """Any text becomes exactly `context` ids of the vocabulary, and a longer one is recognised by its length."""
    tokeniser = read(kind)
    tokens = tokeniser.split(text)
    assert len(tokens.ids) == CONTEXT[kind]
    assert all(0 <= id_ < 1000 for id_ in tokens.ids)
    padding = tokeniser.split("").ids[-1]
    if tokens.length < CONTEXT[kind]:
        assert tokens.ids[-1] == padding


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [10, 70, 200])
def test_length_counts_what_was_cut(kind: Family, words: int) -> None:
    """A text's length is its ids before the cut: one per word here, and the special tokens."""
    special = 2 if kind == "clip" else 1
    assert read(kind).split(" ".join(["river"] * words)).length in {words + special, words + special + 1}


@given(st.text())
def test_canonicalise_is_idempotent(text: str) -> None:
    """What is canonical stays as it is; lower-casing alone may need a second look at a few capitals."""
    once = canonicalise(text, lower=False)
    assert canonicalise(once, lower=False) == once
    assert once == once.strip()
    lower = canonicalise(text.lower())
    assert canonicalise(lower) == lower


@pytest.mark.parametrize(("kind", "unknown"), [("siglip", "市场"), ("siglip2", "市场"), ("clip", "市场")])
def test_unknown_characters_are_named(kind: Family, unknown: str) -> None:
    """Characters that become <unk>, or raw bytes, are named once each, in order; plain English has none."""
    tokeniser = read(kind)
    assert tokeniser.split("a photo of 市场市场 near a river").unknown == unknown
    assert tokeniser.split("a remote sensing image of dense residential").unknown == ""


def test_siglip_reads_tokenizer_json_where_there_is_no_spiece_model(tmp_path: Path) -> None:
    """Some checkpoints carry tokenizer.json alone: the text is canonicalised all the same."""
    directory = copy("siglip2", tmp_path, pad_token="<eos>", padding_side="right")
    tokeniser = read("siglip", directory)
    assert tokeniser.split("A River!").ids == tokeniser.split("a river").ids
    assert tokeniser.split("river").ids[-1] == 1


def test_siglip2_padding_side_is_read_from_the_config(tmp_path: Path) -> None:
    """tokenizer_config.json overrules tokenizer.json, as in transformers."""
    ids = read("siglip2", copy("siglip2", tmp_path, padding_side="left")).split("river").ids
    assert ids[0] == 0
    assert ids[-1] == 1


def test_siglip2_without_a_padding_side_is_refused(tmp_path: Path) -> None:
    """The tower pools the last position: guessing the side would be silent nonsense."""
    directory = copy("siglip2", tmp_path)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["padding"] = None
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="no padding side"):
        read("siglip2", directory)


def test_clip_padding_follows_the_config(tmp_path: Path) -> None:
    """OpenCLIP pads with id 0 and writes so; an object around the token is read too."""
    config = {"pad_token": {"content": "<|startoftext|>", "lstrip": False}}
    assert read("clip", copy("clip", tmp_path, **config)).split("river").ids[-1] == 0


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("spiece.model", b"no model", "not a SentencePiece model"),
        ("spiece.model", b"", "SentencePiece|no </s>"),
        ("tokenizer_config.json", b"{", "not JSON"),
    ],
)
def test_torn_files_are_named(tmp_path: Path, file: str, content: bytes, match: str) -> None:
    """A torn tokenizer file is refused with its path."""
    directory = Path(shutil.copytree(FIXTURES / "siglip", tmp_path / "t"))
    (directory / file).write_bytes(content)
    with pytest.raises(BundleError, match=match) as error:
        read("siglip", directory)
    assert file in str(error.value)


def test_torn_tokenizer_json_is_named(tmp_path: Path) -> None:
    """The tokenizers library's own errors are wrapped."""
    directory = Path(shutil.copytree(FIXTURES / "clip", tmp_path / "t"))
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        read("clip", directory)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """An empty directory says what belongs there."""
    with pytest.raises(BundleError, match=r"no spiece\.model or tokenizer\.json"):
        read("siglip", tmp_path)
    with pytest.raises(BundleError, match=r"no tokenizer\.json"):
        read("clip", FIXTURES / "siglip")


def test_a_larger_vocabulary_than_the_towers_is_refused() -> None:
    """An id without an embedding means that the tokenizer belongs to another model."""
    with pytest.raises(BundleError, match="the text tower knows 50 tokens"):
        read("siglip", vocabulary=50).encode(["a remote sensing image of airport"])


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_live_against_transformers(kind: Family) -> None:
    """The installed transformers gives the same ids; texts that spell its special tokens are left out."""
    pytest.importorskip("transformers")
    reference = runpy.run_path(str(Path(__file__).parent / "make_tokenizers.py"))["reference_ids"]
    tokeniser = read(kind)

    @settings(max_examples=30)
    @given(st.lists(st.text(st.sampled_from("abcxyz ABC .,'_-\t\n7é市Σß▁"), max_size=90), min_size=1, max_size=20))
    def agree(texts: list[str]) -> None:
        assert tokeniser.encode(texts).tolist() == reference(kind, FIXTURES / kind, texts)

    agree()
