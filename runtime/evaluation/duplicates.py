"""Likeness: frames that show the same, and frames that show nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Emptiness = Literal["constant", "noise"]

SAME = 3  # bits of 64: codecs and resizing move a difference hash by less, another place by far more
_LEAST_SPREAD = 4.0  # grey levels of standard deviation; fog over water has more
_LEAST_CORRELATION = 0.3  # between neighbouring pixels; pictures of the world have 0.7 and more, noise has none


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """Return 64 bits that say where a picture ``[S, S, 3]`` grows brighter to the right, on a grid of 8 x 9 means."""
    grey = _grey(pixels)
    rows = np.linspace(0, grey.shape[0], 9).astype(int)
    columns = np.linspace(0, grey.shape[1], 10).astype(int)
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), columns[:-1], axis=1)
    means = sums / np.diff(rows)[:, None] / np.diff(columns)[None]
    return int.from_bytes(np.packbits(means[:, 1:] > means[:, :-1]).tobytes(), "big")


def distance(one: int, others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the bits in which a hash differs from others ``[N]``."""
    differing = np.bitwise_xor(others, np.uint64(one))
    return np.asarray(np.unpackbits(differing[:, None].view(np.uint8), axis=1).sum(axis=1), np.uint8)


def emptiness(pixels: NDArray[np.uint8]) -> Emptiness | None:
    """Say why a picture shows nothing of the world, or None."""
    grey = _grey(pixels)
    if float(grey.std()) < _LEAST_SPREAD:
        return "constant"
    centred = grey - grey.mean()
    power = float((centred**2).mean())
    right = float((centred[:, 1:] * centred[:, :-1]).mean()) / power
    below = float((centred[1:] * centred[:-1]).mean()) / power
    return "noise" if max(right, below) < _LEAST_CORRELATION else None


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of a resized frame, 64 hex digits."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))
