"""Matching: an embedding against the cached label matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank


_LOWEST = np.float32(-80)  # its exponential still fits float32; higher logits need no bound


@dataclass(frozen=True, slots=True)
class Match:
    """Every label's answer to one embedding, each float32 ``[K]``, all finite except ``shares``.

    ``cosines`` in [-1, 1]; ``logits`` = exp(logit_scale)·cosine + logit_bias with each label's own scale and bias: the
    only numbers that labels are ranked by; ``scores`` = sigmoid(logits); ``shares`` = softmax of the logits inside the
    label's exclusive group, NaN for labels that exclude no other.
    """

    cosines: NDArray[np.float32]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    shares: NDArray[np.float32]


class Matcher:
    """A label bank laid out for matching: one product per frame, nothing else that grows with the labels."""

    def __init__(self, bank: LabelBank) -> None:
        header = bank.header
        self._vectors = np.ascontiguousarray(bank.vectors)
        self._scales, self._biases = bank.scales, bank.biases
        groups = np.array([label.group or "" for label in header.labels])
        names = ("", *header.exclusive) if header.activation == "softmax" else header.exclusive
        # A softmax tower (CLIP) only knows "which of these": its ungrouped labels are one group.
        self._groups = [rows for name in names if len(rows := np.flatnonzero(groups == name))]

    def match(self, embedding: NDArray[np.float32]) -> Match:
        """Match one unit embedding ``[D]``. Raises EngineError for an embedding that gives no finite answer."""
        return self._answers(self._vectors @ embedding)

    def match_rows(self, embeddings: NDArray[np.float32]) -> Match:
        """Match many unit embeddings ``[N, D]`` at once; every field of the answer is ``[N, K]``."""
        return self._answers(embeddings @ self._vectors.T)

    def _answers(self, cosines: NDArray[np.float32]) -> Match:
        logits = cosines * self._scales + self._biases
        if not np.isfinite(logits.sum()):  # bounded logits cannot overflow a sum, and one NaN or infinity reaches it
            raise EngineError("the engine's embedding gives no finite score; build it again, or use the fp32 engine")
        shares = np.full_like(logits, np.nan)
        for rows in self._groups:
            powers = np.exp(logits[..., rows] - logits[..., rows].max(axis=-1, keepdims=True))
            shares[..., rows] = powers / powers.sum(axis=-1, keepdims=True)
        scores = 1 / (1 + np.exp(-np.maximum(logits, _LOWEST)))
        return Match(cosines, logits, scores, shares)
