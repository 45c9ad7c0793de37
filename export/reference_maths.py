"""The formulas of both towers in plain numpy and double precision, the long way round.

Nothing here uses the description or the author of the graph, so that a mistake there cannot repeat itself here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.export.tower import Pixels

    Doubles = NDArray[np.float64]


def attend(query: Doubles, key: Doubles, value: Doubles, heads: int, *, causal: bool) -> Doubles:
    """softmax(Q·Kᵀ / √d)·V per head, of Vaswani et al., "Attention Is All You Need", 2017."""
    depth = query.shape[2] // heads
    mixed = np.empty_like(query)
    for head in range(heads):
        part = slice(head * depth, (head + 1) * depth)
        scores = query[..., part] @ key[..., part].transpose(0, 2, 1) / math.sqrt(depth)
        if causal:
            scores = np.where(np.tri(scores.shape[1], dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed[..., part] = shares / shares.sum(axis=-1, keepdims=True) @ value[..., part]
    return mixed


def _gelu(x: Doubles) -> Doubles:
    y: Doubles = x * 0.5 * (1 + _erf(x / math.sqrt(2)))
    return y


_STEP = 1 / 512
_GRID = np.arange(0, 6.5 + _STEP, _STEP)  # beyond 6 the error function is 1 in double precision
_ERF = np.array([math.erf(x) for x in _GRID])
_SLOPE = 2 / math.sqrt(math.pi) * np.exp(-_GRID * _GRID)


def _erf(x: Doubles) -> Doubles:
    """Return the error function, by cubic Hermite pieces between values of the C library; exact to 1e-12."""
    far = np.minimum(np.abs(x), _GRID[-2])
    left = (far / _STEP).astype(np.intp)
    t = far / _STEP - left
    back = 1 - t
    value: Doubles = back * back * ((1 + 2 * t) * _ERF[left] + t * _STEP * _SLOPE[left])
    value += t * t * ((1 + 2 * back) * _ERF[left + 1] - back * _STEP * _SLOPE[left + 1])
    return np.copysign(value, x)


def _gelu_tanh(x: Doubles) -> Doubles:
    y: Doubles = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return y


def _quick_gelu(x: Doubles) -> Doubles:
    y: Doubles = x / (1 + np.exp(-1.702 * x))
    return y


# Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, by the names that transformers gives them.
ACTIVATE: dict[str, Callable[[Doubles], Doubles]] = {
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "quick_gelu": _quick_gelu,
}


def normalise(frames: NDArray[np.uint8], pixels: Pixels) -> Doubles:
    """Turn pixel values into the numbers that a tower was trained on."""
    values: Doubles = (frames * np.float64(pixels.rescale) - np.asarray(pixels.mean)) / np.asarray(pixels.std)
    return values


def unit(x: Doubles) -> Doubles:
    """Scale vectors to unit length."""
    length: Doubles = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / length


def normed(x: Doubles, scale: Doubles, shift: Doubles, epsilon: float) -> Doubles:
    """Layer normalisation over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon)
    result: Doubles = centred / deviation * scale + shift
    return result


def cut_patches(pixels: Doubles, patch: int) -> Doubles:
    """Cut ``[N, S, S, 3]`` into rows ``[N, patches, 3 · P · P]``, as a convolution whose stride is its size reads."""
    across = range(0, pixels.shape[1] - patch + 1, patch)
    pieces = [pixels[:, y : y + patch, x : x + patch].transpose(0, 3, 1, 2) for y in across for x in across]
    return np.stack([piece.reshape(len(pixels), -1) for piece in pieces], axis=1)
