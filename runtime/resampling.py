"""Resampling: the weights of Pillow's antialiased filters, as band matrices cut into dense blocks for the BLAS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Filter, Resize

Taps = list[tuple[int, "NDArray[np.float64]"]]  # for every output its first input, and the weights from there on

_BLOCK = 16  # outputs per block: the BLAS kernel's width; wider wastes products on the zeros of the band


@dataclass(frozen=True, slots=True)
class Block:
    """Outputs ``[start, stop)`` of one pass, made from inputs ``[first, last)`` by ``weights``."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a picture comes to lie in the square: its weights across and down, and the part of the square it fills."""

    across: Taps
    down: Taps
    window: tuple[slice, slice]

    @classmethod
    def of(cls, height: int, width: int, contract: Resize, pixel_aspect: float = 1.0) -> Placing:
        """Place a picture of so many pixels, each ``pixel_aspect`` times as wide as high."""
        side, kind = contract.side, contract.filter
        scaled_height, scaled_width = _scaled_size(height, width * pixel_aspect, contract)
        top, rows = _window(scaled_height, contract)
        left, columns = _window(scaled_width, contract)
        return cls(
            taps(width, scaled_width, kind)[left : left + columns],
            taps(height, scaled_height, kind)[top : top + rows],
            (_centre(rows, side), _centre(columns, side)),
        )


def _scaled_size(height: float, width: float, contract: Resize) -> tuple[int, int]:
    side = contract.side
    match contract.fit:
        case "squash":
            return side, side
        case "crop":  # the longer edge is cut down to whole pixels, as CLIP does
            short, edge = min(height, width), contract.edge or side
            return int(edge * height / short), int(edge * width / short)
        case "letterbox":
            long = max(height, width)
            return max(1, round(side * height / long)), max(1, round(side * width / long))


def _window(scaled: int, contract: Resize) -> tuple[int, int]:
    """Return where the side lies in a scaled edge: its first pixel, and how many pixels there are."""
    excess = max(0, scaled - contract.side)
    first = round(excess / 2) if contract.rounding == "even" else excess // 2
    return first, min(scaled, contract.side)


def _centre(length: int, side: int) -> slice:
    start = (side - length) // 2
    return slice(start, start + length)


def taps(source: int, target: int, kind: Filter) -> Taps:
    """For every output pixel its first input pixel and the weights from there on (Pillow's ``precompute_coeffs``)."""
    kernel, radius = _KERNELS[kind]
    scale = source / target
    stretch = max(scale, 1.0)
    support = radius * stretch
    found: Taps = []
    for index in range(target):
        centre = (index + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(source, int(centre + support + 0.5))
        weights = np.array([kernel((x - centre + 0.5) / stretch) for x in range(first, last)])
        found.append((first, weights / weights.sum()))
    return found


def through_chroma(found: Taps, length: int, subsampling: int, siting: float) -> Taps:
    """Turn weights over luma into weights over ``length`` chroma samples, interpolated linearly between their places.

    This is the same sum as interpolating chroma to full size first, without making that picture.
    """
    composed: Taps = []
    for begin, weights in found:
        place = np.clip((np.arange(begin, begin + len(weights)) - siting) / subsampling, 0, length - 1)
        low = np.minimum(place.astype(int), max(0, length - 2))
        high = np.minimum(low + 1, length - 1)
        first = int(low[0])
        chroma = np.zeros(int(high[-1]) - first + 1)
        np.add.at(chroma, low - first, weights * (1 - (place - low)))
        np.add.at(chroma, high - first, weights * (place - low))
        composed.append((first, chroma))
    return composed


def blocks(found: Taps) -> list[Block]:
    """Cut a band of weights into blocks."""
    made = []
    for start in range(0, len(found), _BLOCK):
        part = found[start : start + _BLOCK]
        first = min(begin for begin, _ in part)
        last = max(begin + len(weights) for begin, weights in part)
        band = np.zeros((len(part), last - first), np.float32)
        for row, (begin, weights) in zip(band, part, strict=True):
            row[begin - first : begin - first + len(weights)] = weights
        made.append(Block(start, start + len(part), first, last, band))
    return made


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _lanczos(x: float) -> float:
    def sinc(v: float) -> float:
        return 1.0 if v == 0 else math.sin(v * math.pi) / (v * math.pi)

    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


_KERNELS: dict[Filter, tuple[Callable[[float], float], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (_bilinear, 1.0),
    "lanczos": (_lanczos, 3.0),
    "box": (_box, 0.5),
}
