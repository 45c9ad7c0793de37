"""Turn a text into the 64 ids that a SigLIP text tower reads."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sentencepiece import SentencePieceProcessor

CONTEXT = 64
END_ID = 1
UNKNOWN_ID = 2
DELETED = str.maketrans("", "", string.punctuation)


def canonicalise(text: str) -> str:
    """Lower-case, delete ASCII punctuation and collapse white space."""
    return re.sub(r"\s+", " ", text.lower().translate(DELETED)).strip()


def pad(pieces: list[int]) -> list[int]:
    """Append the end id and pad with it to exactly 64 ids, cutting what is longer."""
    return (pieces[: CONTEXT - 1] + [END_ID] * CONTEXT)[:CONTEXT]


def load_processor(path: Path) -> SentencePieceProcessor:
    """Open a SentencePiece model file."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path))


def encode(processor: SentencePieceProcessor, texts: Iterable[str]) -> np.ndarray:
    """Return int64 ids `[N, 64]`."""
    pieces = processor.encode([canonicalise(text) for text in texts])
    return np.array([pad(list(row)) for row in pieces], dtype=np.int64).reshape(-1, CONTEXT)
