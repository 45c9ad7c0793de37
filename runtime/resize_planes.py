"""Resize of planes: each plane is filtered by itself, and colour is made of the small picture.

Filtering and the colour matrix are both linear, so their order does not matter as long as nothing is clipped. Applied
last, the matrix meets side x side pixels and not the whole picture. Chroma's own filter contains its interpolation to
full size, from the places that the stream states. Nothing is rounded before the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.resampling import Placing, Taps, blocks, through_chroma

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bundle import Resize
    from overflight.runtime.planes import Planes

_CHUNK_PIXELS = 230_400  # converted to float at a time, in whole rows: about what a second-level cache holds


class PlanesPlan:
    """Everything that planes of one size and layout need, with the buffers made once."""

    def __init__(self, picture: Planes, contract: Resize) -> None:
        height, width = picture.luma.shape
        placing = Placing.of(height, width, contract, picture.pixel_aspect)
        rows, columns = len(placing.down), len(placing.across)
        planes = 1 + len(picture.chroma)
        self._window, self._fill = placing.window, contract.fill
        self._results = np.empty((planes, rows, columns), np.float32)
        self._luma = _Pass(placing.across, placing.down, picture.luma.shape, self._results[0])
        self._chroma = [
            _Pass(
                through_chroma(placing.across, plane.shape[1], picture.subsampling[0], picture.siting[0]),
                through_chroma(placing.down, plane.shape[0], picture.subsampling[1], picture.siting[1]),
                plane.shape,
                result,
            )
            for plane, result in zip(picture.chroma, self._results[1:], strict=True)
        ]
        matrix, offset = picture.conversion()
        self._matrix = matrix[:, :planes].astype(np.float32)
        self._offset = (offset[:, None] + 0.5).astype(np.float32)
        self._levels = np.empty((3, rows * columns), np.float32)

    @staticmethod
    def key(picture: Planes) -> object:
        """Return what two pictures must share to share a plan."""
        return (
            picture.luma.shape, *(plane.shape for plane in picture.chroma), picture.matrix, picture.full_range,
            picture.bits, picture.subsampling, picture.siting, picture.pixel_aspect,
        )  # fmt: skip

    def run(self, picture: Planes, out: NDArray[np.uint8]) -> None:
        """Write the picture into ``out`` uint8 ``[side, side, 3]`` RGB."""
        self._luma.run(picture.luma)
        for passes, plane in zip(self._chroma, picture.chroma, strict=True):
            passes.run(plane)
        planes, rows, columns = self._results.shape
        np.matmul(self._matrix, self._results.reshape(planes, -1), out=self._levels)
        self._levels += self._offset
        np.clip(self._levels, 0, 255, out=self._levels)  # 255.5 and above would wrap round
        target = out[self._window]
        if target.shape != out.shape:
            out[:] = self._fill
        target[:] = self._levels.astype(np.uint8).reshape(3, rows, columns).transpose(1, 2, 0)


class _Pass:
    """Both passes over one plane."""

    def __init__(self, across: Taps, down: Taps, shape: tuple[int, ...], result: NDArray[np.float32]) -> None:
        first = min(begin for begin, _ in down)
        last = max(begin + len(weights) for begin, weights in down)
        self._rows = slice(first, last)
        self._across = [replace(block, weights=np.ascontiguousarray(block.weights.T)) for block in blocks(across)]
        self._down = blocks([(begin - first, weights) for begin, weights in down])
        self._chunk = np.empty((min(last - first, max(1, _CHUNK_PIXELS // shape[1])), shape[1]), np.float32)
        self._middle = np.empty((last - first, result.shape[1]), np.float32)
        self._result = result

    def run(self, plane: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        source = plane[self._rows]
        for top in range(0, len(source), len(self._chunk)):
            rows = source[top : top + len(self._chunk)]
            chunk = self._chunk[: len(rows)]
            np.copyto(chunk, rows)
            middle = self._middle[top : top + len(rows)]
            for block in self._across:
                np.matmul(chunk[:, block.first : block.last], block.weights, out=middle[:, block.start : block.stop])
        for block in self._down:
            np.matmul(block.weights, self._middle[block.first : block.last], out=self._result[block.start : block.stop])
