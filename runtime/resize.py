"""Resize: a picture to the tower's square input, as Pillow's antialiased filters do it, at camera speed.

The weights are Pillow's (``Resample.c``: filter stretched by the scale, taps normalised to one, horizontal pass rounded
to 8 bit before the vertical one), so a frame meets the tower exactly as in training. Each pass is a band matrix, cut
into blocks of dense products for the BLAS. Colours are taken apart first, so that no product meets another colour's
zeros, which also swaps BGR to RGB for nothing: OpenCV takes a quarter of NumPy's time and is used where it is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Filter
    from overflight.runtime.bundle import Resize as ResizeContract
    from overflight.runtime.frame import ChannelOrder

_BLOCK = 16  # outputs per block: the BLAS kernel's width; wider wastes products on the zeros of the band
_CHUNK_PIXELS = 230_400  # converted to float at a time, in whole rows: about what a second-level cache holds


@dataclass(frozen=True, slots=True)
class _Block:
    """Outputs ``[start, stop)`` of one pass, made from inputs ``[first, last)`` by ``weights``."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Both passes for one source size, with the buffers they write into."""

    rows: slice
    channels: tuple[int, int, int]
    across: list[_Block]
    down: list[_Block]
    window: tuple[slice, slice]
    fill: int
    split: Callable[[NDArray[np.uint8], list[NDArray[np.uint8]]], object]
    planes: NDArray[np.uint8]
    chunk: NDArray[np.float32]
    middle: NDArray[np.float32]
    result: NDArray[np.float32]
    levels: NDArray[np.uint8]


class Resizer:
    """Resizes pictures of any size to ``[side, side, 3]`` RGB; plans and buffers are kept per source size.

    Not thread-safe: one resizer per thread.
    """

    def __init__(self, contract: ResizeContract) -> None:
        self.side = contract.side
        self._contract = contract
        self._plans: dict[tuple[int, int, ChannelOrder], _Plan] = {}

    def resize(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8], order: ChannelOrder = "rgb") -> None:
        """Write ``pixels`` uint8 ``[height, width, 3]`` into ``out`` uint8 ``[side, side, 3]`` RGB.

        Raises SourceError for anything that is not such a picture.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise SourceError(
                f"a frame of {pixels.dtype} {list(pixels.shape)}: expected uint8 [height, width, 3]; convert it first"
            )
        height, width, _ = pixels.shape
        key = (height, width, order)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= 8:  # a folder of stills in many sizes must not collect buffers
                self._plans.clear()
            plan = self._plans[key] = _plan(height, width, self._contract, order)
        _run(plan, pixels, out)


def _run(plan: _Plan, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    source = pixels[plan.rows]
    columns = plan.middle.shape[1] // 3
    for top in range(0, len(source), len(plan.chunk)):
        rows = source[top : top + len(plan.chunk)]
        chunk = plan.chunk[: len(rows)]
        planes = list(plan.planes[:, : len(rows)])
        plan.split(rows, planes)
        for place, channel in enumerate(plan.channels):
            np.copyto(chunk, planes[channel])
            middle = plan.middle[top : top + len(rows), place * columns : (place + 1) * columns]
            for block in plan.across:
                np.matmul(chunk[:, block.first : block.last], block.weights, out=middle[:, block.start : block.stop])
    _round(plan.middle)
    for block in plan.down:
        np.matmul(block.weights, plan.middle[block.first : block.last], out=plan.result[block.start : block.stop])
    _round(plan.result)
    rows_out, columns_out = plan.window
    target = out[rows_out, columns_out]
    if target.shape != out.shape:
        out[:] = plan.fill
    np.copyto(plan.levels, plan.result, casting="unsafe")  # in one piece: far faster than while interleaving
    target[:] = plan.levels.reshape(len(target), 3, -1).transpose(0, 2, 1)


def _splitter() -> Callable[[NDArray[np.uint8], list[NDArray[np.uint8]]], object]:
    try:
        import cv2
    except ImportError:
        return _split
    return cv2.split


def _split(rows: NDArray[np.uint8], planes: list[NDArray[np.uint8]]) -> None:
    for channel, plane in enumerate(planes):
        np.copyto(plane, rows[:, :, channel])


def _round(values: NDArray[np.float32]) -> None:
    values += 0.5
    np.floor(values, out=values)
    np.clip(values, 0, 255, out=values)


def _plan(height: int, width: int, contract: ResizeContract, order: ChannelOrder) -> _Plan:
    side, kind = contract.side, contract.filter
    scaled_height, scaled_width = _scaled_size(height, width, contract)
    top, rows = _window(scaled_height, contract)
    left, columns = _window(scaled_width, contract)
    down_taps = _taps(height, scaled_height, kind)[top : top + rows]
    first_row = min(first for first, _ in down_taps)
    last_row = max(first + len(weights) for first, weights in down_taps)
    down_taps = [(first - first_row, weights) for first, weights in down_taps]
    across = [
        replace(block, weights=np.ascontiguousarray(block.weights.T))
        for block in _blocks(_taps(width, scaled_width, kind)[left : left + columns])
    ]
    chunk_rows = min(last_row - first_row, max(1, _CHUNK_PIXELS // width))
    return _Plan(
        rows=slice(first_row, last_row),
        channels=(2, 1, 0) if order == "bgr" else (0, 1, 2),
        across=across,
        down=_blocks(down_taps),
        window=(_centre(rows, side), _centre(columns, side)),
        fill=contract.fill,
        split=_splitter(),
        planes=np.empty((3, chunk_rows, width), np.uint8),
        chunk=np.empty((chunk_rows, width), np.float32),
        middle=np.empty((last_row - first_row, columns * 3), np.float32),
        result=np.empty((rows, columns * 3), np.float32),
        levels=np.empty((rows, columns * 3), np.uint8),
    )


def _scaled_size(height: int, width: int, contract: ResizeContract) -> tuple[int, int]:
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


def _window(scaled: int, contract: ResizeContract) -> tuple[int, int]:
    """Return where the side lies in a scaled edge: its first pixel, and how many pixels there are."""
    excess = max(0, scaled - contract.side)
    first = round(excess / 2) if contract.rounding == "even" else excess // 2
    return first, min(scaled, contract.side)


def _centre(length: int, side: int) -> slice:
    start = (side - length) // 2
    return slice(start, start + length)


def _taps(source: int, target: int, kind: Filter) -> list[tuple[int, NDArray[np.float64]]]:
    """For every output pixel its first input pixel and the weights from there on (Pillow's ``precompute_coeffs``)."""
    kernel, radius = _KERNELS[kind]
    scale = source / target
    stretch = max(scale, 1.0)
    support = radius * stretch
    taps = []
    for index in range(target):
        centre = (index + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(source, int(centre + support + 0.5))
        weights = np.array([kernel((x - centre + 0.5) / stretch) for x in range(first, last)])
        taps.append((first, weights / weights.sum()))
    return taps


def _blocks(taps: list[tuple[int, NDArray[np.float64]]]) -> list[_Block]:
    blocks = []
    for start in range(0, len(taps), _BLOCK):
        part = taps[start : start + _BLOCK]
        first = min(begin for begin, _ in part)
        last = max(begin + len(weights) for begin, weights in part)
        band = np.zeros((len(part), last - first), np.float32)
        for row, (begin, weights) in zip(band, part, strict=True):
            row[begin - first : begin - first + len(weights)] = weights
        blocks.append(_Block(start, start + len(part), first, last, band))
    return blocks


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
