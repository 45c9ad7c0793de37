"""Banks of three colours in groups, for a tower that sees mean colours."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import BankHeader, Label, LabelBank


@pytest.fixture
def grouped_bank(colour_bank: LabelBank) -> LabelBank:
    """Return a bank whose exclusive group "cover" is red, green and blue, and whose background is grey."""
    header = colour_bank.header
    vectors = np.concatenate([colour_bank.vectors, [[0.577, 0.577, 0.577]]]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = tuple(msgspec.structs.replace(label, group="cover") for label in header.labels)
    made: BankHeader = msgspec.structs.replace(
        header, labels=(*labels, Label("grey", background=True)), exclusive=("cover",), threshold=0.3
    )
    return LabelBank.make(made, vectors)
