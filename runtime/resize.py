"""Resize: a picture to the tower's square input, as Pillow's antialiased filters do it, at camera speed.

The weights are Pillow's (``Resample.c``: filter stretched by the scale, taps normalised to one, horizontal pass rounded
to 8 bit before the vertical one), so a frame meets the tower exactly as in training. Each pass is a band matrix, cut
into blocks of dense products for the BLAS. Colours are taken apart first, so that no product meets another colour's
zeros, which also swaps BGR to RGB for nothing: OpenCV takes a quarter of NumPy's time and is used where it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError
from overflight.runtime.planes import Planes
from overflight.runtime.resampling import Block, Placing, blocks
from overflight.runtime.resize_planes import PlanesPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Resize as ResizeContract
    from overflight.runtime.frame import ChannelOrder

_CHUNK_PIXELS = 230_400  # converted to float at a time, in whole rows: about what a second-level cache holds
_MOST_PLANS = 8  # a folder of stills in many sizes must not collect buffers


@dataclass(frozen=True, slots=True)
class _Plan:
    """Both passes for one source size, with the buffers they write into."""

    rows: slice
    channels: tuple[int, int, int]
    across: list[Block]
    down: list[Block]
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
        self._planes_plans: dict[object, PlanesPlan] = {}

    def resize(self, picture: NDArray[np.uint8] | Planes, out: NDArray[np.uint8], order: ChannelOrder = "rgb") -> None:
        """Write a picture into ``out`` uint8 ``[side, side, 3]`` RGB.

        The picture is a decoder's planes, or uint8 ``[height, width, 3]`` in ``order``. Raises SourceError for anything
        else.
        """
        if isinstance(picture, Planes):
            self._plan_planes(picture).run(picture, out)
            return
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise SourceError(
                f"a frame of {picture.dtype} {list(picture.shape)}: expected uint8 [height, width, 3]; convert it first"
            )
        height, width, _ = picture.shape
        key = (height, width, order)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[key] = _plan(height, width, self._contract, order)
        _run(plan, picture, out)

    def _plan_planes(self, picture: Planes) -> PlanesPlan:
        key = PlanesPlan.key(picture)
        plan = self._planes_plans.get(key)
        if plan is None:
            if len(self._planes_plans) >= _MOST_PLANS:
                self._planes_plans.clear()
            plan = self._planes_plans[key] = PlanesPlan(picture, self._contract)
        return plan


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
    placing = Placing.of(height, width, contract)
    first_row = min(first for first, _ in placing.down)
    last_row = max(first + len(weights) for first, weights in placing.down)
    across = [replace(block, weights=np.ascontiguousarray(block.weights.T)) for block in blocks(placing.across)]
    chunk_rows = min(last_row - first_row, max(1, _CHUNK_PIXELS // width))
    rows, columns = len(placing.down), len(placing.across)
    return _Plan(
        rows=slice(first_row, last_row),
        channels=(2, 1, 0) if order == "bgr" else (0, 1, 2),
        across=across,
        down=blocks([(first - first_row, weights) for first, weights in placing.down]),
        window=placing.window,
        fill=contract.fill,
        split=_splitter(),
        planes=np.empty((3, chunk_rows, width), np.uint8),
        chunk=np.empty((chunk_rows, width), np.float32),
        middle=np.empty((last_row - first_row, columns * 3), np.float32),
        result=np.empty((rows, columns * 3), np.float32),
        levels=np.empty((rows, columns * 3), np.uint8),
    )
