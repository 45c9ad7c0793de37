"""Bounds of a label bank: whatever its bytes say, a bank is usable or a BankError.

Covers: runtime/bounded.py.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import BankError, UsageError

CASES = Path(__file__).parents[3] / "shared" / "cases" / "attacks"


def remade(bank: LabelBank, **changes: Any) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, **changes), bank.vectors)


def label(bank: LabelBank, **changes: Any) -> tuple[Label, ...]:
    first, *others = bank.header.labels
    return (msgspec.structs.replace(first, **changes), *others)


def raw(header: bytes, vectors: np.ndarray | None = None, **tensors: np.ndarray) -> bytes:
    vectors = np.eye(3, dtype=np.float16) if vectors is None else vectors
    return save({"vectors": vectors, **tensors}, metadata={"overflight": header.decode(errors="surrogateescape")})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logit_scale": 1e308}, "logit_scale 1e.308"),
        ({"logit_bias": -1e308}, "logit_bias -1e.308"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"exclusive": ("ghost",)}, "exclusive group 'ghost' has no label"),
        ({"exclusive": ("",)}, "exclusive group '' has no label"),
        ({"labels": ()}, "0 labels"),
        ({"name": "x" * 301}, "name of 301 characters"),
        ({"name": "a\nb"}, "control character"),
        ({"templates": {"t": ("x" * 1001,)}}, "1,001 characters"),
        ({"templates": {f"t{n}": ("{}",) for n in range(101)}}, "101 template sets"),
        ({"templates": {"t": ("{}",) * 1001}}, "1,001, expected at most 1,000"),
    ],
)
def test_a_bank_out_of_bounds_is_refused(colour_bank: LabelBank, changes: dict[str, Any], reason: str) -> None:
    """Each field has a bound, and the message names it."""
    with pytest.raises(BankError, match=reason):
        remade(colour_bank, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ""}, "label of 0 characters"),
        ({"text": "x" * 301}, "label of 301 characters"),
        ({"text": "a\x1b[2Jb"}, "control character"),
        ({"text": "green"}, "label 'green' 2 times"),
        ({"threshold": -0.1}, "threshold -0.1"),
        ({"logit_scale": -1e300}, "logit_scale"),
        ({"logit_bias": 1e39}, "logit_bias"),
        ({"prompts": ("x" * 1001,)}, "1,001 characters"),
        ({"prompts": ("x",) * 1001}, "1,001, expected at most 1,000"),
        ({"group": ""}, "group of 0 characters"),
        ({"templates": "t"}, "'t' are named but not stored"),
    ],
)
def test_a_label_out_of_bounds_is_refused(colour_bank: LabelBank, changes: dict[str, Any], reason: str) -> None:
    """One bad label is enough."""
    with pytest.raises(BankError, match=reason):
        remade(colour_bank, labels=label(colour_bank, **changes))


def test_a_bank_of_background_only_is_refused(colour_bank: LabelBank) -> None:
    """It could never report anything."""
    labels = tuple(msgspec.structs.replace(one, background=True) for one in colour_bank.header.labels)
    with pytest.raises(BankError, match="every label is background"):
        remade(colour_bank, labels=labels)


def test_other_tensors_are_refused(colour_bank: LabelBank) -> None:
    """A bank is one matrix of 16-bit numbers, nothing hidden next to it."""
    header = msgspec.json.encode(colour_bank.header)
    for vectors, more in (
        (np.eye(3, dtype=np.float32), {}),
        (np.eye(3, dtype=np.float16), {"more": np.zeros(4, np.uint8)}),
        (np.eye(2, 3, dtype=np.float16), {}),
        (np.zeros((3, 0), np.float16), {}),
        (np.full((3, 3), np.inf, np.float16), {}),
        (np.ones(3, np.float16), {}),
    ):
        with pytest.raises(BankError):
            LabelBank.decode(raw(header, vectors, **more), source="x")


def test_nested_or_broken_headers_are_refused(colour_bank: LabelBank) -> None:
    """Neither depth, nor bytes that are no text, nor a length beyond the file end a flight."""
    deep = b'{"__metadata__":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    spoilt = colour_bank.raw.replace(b"red", b"r\xe1d", 1)
    assert spoilt != colour_bank.raw
    inner = raw(b"[" * 200_000 + b"]" * 200_000)
    newer = colour_bank.raw.replace(rb"\"schema\":2", rb"\"schema\":3")
    for content in (
        struct.pack("<Q", len(deep)) + deep,
        struct.pack("<Q", 2**63 + 5) + b"{}",
        spoilt,
        inner,
        newer,
        colour_bank.raw.replace(rb"\"schema\":2", rb"\"schema\":true"),
        colour_bank.raw.replace(rb"\"logit_bias\":-5.0", rb"\"logit_bias\":1e999"),
    ):
        assert content != colour_bank.raw
        with pytest.raises(BankError):
            LabelBank.decode(content, source="x")


def test_every_flipped_byte_is_refused_or_harmless(colour_bank: LabelBank) -> None:
    """A damaged bank that is still accepted gives finite answers."""
    random = np.random.default_rng(5)
    accepted = 0
    for position in range(len(colour_bank.raw)):
        spoilt = bytearray(colour_bank.raw)
        spoilt[position] ^= 1 << int(random.integers(8))
        try:
            bank = LabelBank.decode(bytes(spoilt), source="x")
        except BankError:
            continue
        accepted += 1
        match = Matcher(bank).match(colour_bank.vectors[0])
        assert np.isfinite(match.scores).all()
        Decider(bank).decide(match)
    assert accepted


@pytest.mark.parametrize("name", ["ghost-group/ghost", "nan-scale-bank/nan", "one-flipped-byte-bank/flipped"])
def test_the_banks_of_the_attack_cases_are_refused(name: str) -> None:
    """Files that once ended a flight."""
    path = CASES / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no case at {path}")
    with pytest.raises(BankError):
        LabelBank.load(path)


def test_only_a_regular_file_is_read(colour_bank: LabelBank, tmp_path: Path) -> None:
    """A FIFO would block, a device never ends, a link may lead nowhere."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path, tmp_path / "dangling", Path("a\0b")):
        with pytest.raises(UsageError):
            LabelBank.load(path)


def test_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    """A file of any size costs a bounded amount of memory."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(BankError, match="at most"):
        LabelBank.load(tmp_path / "large")


def test_format_1_is_read_and_kept_byte_for_byte(colour_bank: LabelBank, tmp_path: Path) -> None:
    """An old bank keeps its hash and its signature when it is copied into a flight."""
    fields = {
        name: value
        for name, value in msgspec.to_builtins(colour_bank.header).items()
        if name not in ("threshold", "schema")
    }
    old = {"schema": 1, **fields, "exclusive": [], "templates": {}}
    content = raw(msgspec.json.encode(old), colour_bank.vectors.astype(np.float16))
    bank = LabelBank.decode(content, source="x")
    assert bank.header.schema == 1
    assert bank.header.labels == colour_bank.header.labels
    bank.save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    np.testing.assert_array_equal(bank.scales, np.full(3, 10, np.float32))


def test_labels_have_their_own_scale_and_bias(colour_bank: LabelBank) -> None:
    """Labels made from pictures and from text share a bank: their logits are compared, not their cosines."""
    labels = (
        colour_bank.header.labels[0],
        msgspec.structs.replace(colour_bank.header.labels[1], logit_scale=0.0, logit_bias=6.0),
        msgspec.structs.replace(colour_bank.header.labels[2], background=True),
    )
    bank = remade(colour_bank, labels=labels)
    match = Matcher(bank).match(colour_bank.vectors[0])
    np.testing.assert_allclose(match.logits[1], match.cosines[1] + 6, rtol=1e-6)
    assert match.cosines[0] > match.cosines[1]
    assert match.logits[1] > match.logits[0] > match.logits[2]
    assert Decider(bank).decide(match).label == "green"


def test_unknown_fields_of_a_header_are_refused(colour_bank: LabelBank) -> None:
    """They could change what the scores mean."""
    header = msgspec.to_builtins(colour_bank.header) | {"temperature": 3}
    with pytest.raises(BankError, match="temperature"):
        LabelBank.decode(raw(msgspec.json.encode(header)), source="x")
    assert isinstance(colour_bank.header, BankHeader)
