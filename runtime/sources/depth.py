"""Depth: pictures of 16 bits or floating point as 8 bits, and how that was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOW, _HIGH = 2.0, 98.0  # percentiles: a dead pixel must not decide the stretch
_DEPTHS = (10, 12, 14, 16)


def to_8_bit(pixels: NDArray[Any], path: object) -> tuple[NDArray[np.uint8], str | None]:
    """Return the picture in 8 bits, and what was done where its depth alone does not say what is white.

    Colour of 16 bits is divided by the full scale of the sensor's depth, the least of 10, 12, 14 and 16 bits that holds
    its largest value; colour in floating point by 1. Measurements in one channel (heat, height) are stretched between
    percentiles. Raises SourceError for a picture without one number.
    """
    if pixels.dtype == np.uint8:
        return pixels, None
    values = pixels.astype(np.float32)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise SourceError(f"{path}: holds no number, only NaN or infinity; make a picture of it again")
    single = pixels.ndim == 2 or (pixels == pixels[..., :1]).all()
    if single:
        low, high = (float(edge) for edge in np.percentile(finite, (_LOW, _HIGH)))
        note: str | None = f"one channel of {pixels.dtype} stretched from {_LOW:g} to {_HIGH:g} % of its values"
    elif pixels.dtype == np.uint16:
        depth = next(bits for bits in _DEPTHS if finite.max() < 1 << bits)
        low, high = 0.0, float((1 << depth) - 1)
        note = None if depth == 16 else f"16-bit colour read as {depth} bits, as its largest value asks for"
    else:
        low, high = (
            (0.0, 1.0) if finite.min() >= 0 and finite.max() <= 1 else (float(finite.min()), float(finite.max()))
        )
        note = None if high == 1.0 else f"colour of {pixels.dtype} stretched over all its values"
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-30))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8), note
