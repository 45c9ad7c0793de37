"""Find near-duplicate images by a difference hash, so that no test image has a twin in training."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 8


def difference_hash(frame: np.ndarray) -> np.ndarray:
    """Return the 64 bits of "is the pixel to the right brighter" on an 8x9 grey thumbnail."""
    grey = Image.fromarray(frame).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)
    levels = np.asarray(grey, dtype=np.int16)
    return (levels[:, 1:] > levels[:, :-1]).ravel()


def match(left: np.ndarray, right: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    """Return (row of left, row of right, bits that differ) for pairs at most `distance` apart.

    Both are bool `[N, 64]`; the count of differing bits is |a| + |b| - 2 a.b.
    """
    a, b = left.astype(np.float32), right.astype(np.float32)
    bits = a.sum(1)[:, None] + b.sum(1)[None] - 2 * (a @ b.T)
    rows, columns = np.nonzero(bits <= distance)
    return [(int(r), int(c), int(bits[r, c])) for r, c in zip(rows, columns, strict=True)]
