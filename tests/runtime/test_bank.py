"""Label banks: what was saved comes back, what is not one is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import BankError, UsageError


def test_a_bank_survives_the_file(colour_bank: LabelBank, tmp_path: Path) -> None:
    """Texts, vectors and hash are the same after saving."""
    path = tmp_path / "bank.safetensors"
    colour_bank.save(path)
    loaded = LabelBank.load(path)
    assert loaded.header == colour_bank.header
    assert loaded.sha256 == colour_bank.sha256
    np.testing.assert_array_equal(loaded.vectors, colour_bank.vectors)


def test_a_label_costs_two_bytes_a_number(colour_bank: LabelBank, tmp_path: Path) -> None:
    """A bank can be sent up a thin link: 16 bit a number."""
    colour_bank.save(tmp_path / "bank")
    header = len(msgspec.json.encode(colour_bank.header))
    assert (tmp_path / "bank").stat().st_size < header * 1.5 + len(colour_bank) * 3 * 2 + 200


def test_a_bank_of_another_tower_is_refused(colour_bank: LabelBank, colour_bundle: Bundle) -> None:
    """Cosines between two models' spaces are noise."""
    foreign = msgspec.structs.replace(colour_bank.header, tower="d" * 64, model="another")
    with pytest.raises(UsageError, match=r"made for another .* overflight labels"):
        LabelBank.make(foreign, colour_bank.vectors).check_fits(colour_bundle.manifest)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    """Anything that is not a bank is a BankError."""
    with pytest.raises(BankError):
        LabelBank.decode(raw, source="x")


def test_a_cut_bank_is_refused(colour_bank: LabelBank, tmp_path: Path) -> None:
    """However little is missing."""
    path = tmp_path / "bank"
    colour_bank.save(path)
    raw = path.read_bytes()
    for length in range(0, len(raw), 37):
        with pytest.raises(BankError):
            LabelBank.decode(raw[:length], source="x")


def test_vectors_that_are_not_unit_length_are_refused(colour_bank: LabelBank) -> None:
    """A cosine needs unit vectors on both sides."""
    with pytest.raises(BankError, match="unit length"):
        LabelBank.make(colour_bank.header, colour_bank.vectors * 2)
    with pytest.raises(BankError, match="unit length"):
        LabelBank.make(colour_bank.header, np.full_like(colour_bank.vectors, np.nan))
