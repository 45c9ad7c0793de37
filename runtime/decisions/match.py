"""Matching: an embedding against the cached label matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank


@dataclass(frozen=True, slots=True)
class Match:
    """Every label's answer to one embedding, each float32 ``[K]``.

    ``cosines`` in [-1, 1]; ``scores`` = sigmoid(exp(logit_scale)·cosine + logit_bias); ``shares`` = softmax of the
    logits inside the label's exclusive group, NaN for labels that exclude no other.
    """

    cosines: NDArray[np.float32]
    scores: NDArray[np.float32]
    shares: NDArray[np.float32]


class Matcher:
    """A label bank laid out for matching: one product per frame, nothing else that grows with the labels."""

    def __init__(self, bank: LabelBank) -> None:
        header = bank.header
        self._vectors = np.ascontiguousarray(bank.vectors)
        self._scale = np.float32(np.exp(header.logit_scale))
        self._bias = np.float32(header.logit_bias)
        groups = np.array([label.group or "" for label in header.labels])
        names = ("", *header.exclusive) if header.activation == "softmax" else header.exclusive
        # A softmax tower (CLIP) knows no other meaning than "which of these": its ungrouped labels are one group.
        self._groups = [rows for name in names if len(rows := np.flatnonzero(groups == name))]

    def match(self, embedding: NDArray[np.float32]) -> Match:
        """Match one unit embedding ``[D]``."""
        cosines = self._vectors @ embedding
        logits = cosines * self._scale + self._bias
        shares = np.full_like(logits, np.nan)
        for rows in self._groups:
            powers = np.exp(logits[rows] - logits[rows].max())
            shares[rows] = powers / powers.sum()
        scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
        return Match(cosines, scores, shares)
