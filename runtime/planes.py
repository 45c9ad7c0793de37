"""Planes: a picture as a decoder leaves it, luma and chroma apart, and how red, green and blue follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Matrix = Literal["bt601", "bt709", "bt2020", "fcc", "smpte240m", "ycgco", "rgb", "grey"]

# The share of red and of blue in luma; green has the rest (ITU-T H.273, table 4).
_SHARES: dict[str, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}


@dataclass(frozen=True, slots=True)
class Planes:
    """One picture of ``bits`` bits a sample: ``luma`` ``[height, width]`` and two smaller planes of chroma.

    One chroma sample stands for ``subsampling`` luma samples (across, down). ``siting`` is where the first chroma
    sample lies, in luma samples right of and below the first luma sample. ``pixel_aspect`` is a pixel's width over its
    height. With the matrix ``rgb`` the planes are green, blue and red; with ``grey`` there is no chroma.
    """

    luma: NDArray[np.uint8] | NDArray[np.uint16]
    chroma: tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]
    matrix: Matrix = "bt709"
    full_range: bool = False
    bits: int = 8
    subsampling: tuple[int, int] = (2, 2)
    siting: tuple[float, float] = (0.0, 0.5)
    pixel_aspect: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3, as an array of this picture in colour has them."""
        height, width = self.luma.shape
        return height, width, 3

    def crop(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """Return a view of a part. Chroma that only partly belongs to it is kept, and its place follows."""
        across, down = self.subsampling
        first, upper = left // across, top // down
        return replace(
            self,
            luma=self.luma[top:bottom, left:right],
            chroma=tuple(plane[upper : -(-bottom // down), first : -(-right // across)] for plane in self.chroma),
            siting=(self.siting[0] + first * across - left, self.siting[1] + upper * down - top),
        )

    def turn(self, quarters: int) -> Planes:
        """Return a view turned counter-clockwise by so many quarters of a circle."""
        turned = self
        for _ in range(quarters % 4):
            across, down = turned.subsampling
            chroma_width = turned.chroma[0].shape[1] if turned.chroma else 0
            behind = turned.luma.shape[1] - 1 - turned.siting[0] - (chroma_width - 1) * across
            turned = replace(
                turned,
                luma=np.rot90(turned.luma),
                chroma=tuple(np.rot90(plane) for plane in turned.chroma),
                subsampling=(down, across),
                siting=(turned.siting[1], behind),
                pixel_aspect=1 / turned.pixel_aspect,
            )
        return turned

    def mirror(self) -> Planes:
        """Return a view with left and right exchanged."""
        chroma_width = self.chroma[0].shape[1] if self.chroma else 0
        behind = self.luma.shape[1] - 1 - self.siting[0] - (chroma_width - 1) * self.subsampling[0]
        return replace(
            self,
            luma=self.luma[:, ::-1],
            chroma=tuple(plane[:, ::-1] for plane in self.chroma),
            siting=(behind, self.siting[1]),
        )

    def conversion(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the matrix ``[3, 3]`` and the offset ``[3]`` from luma and chroma samples to levels of 0 to 255."""
        most = 255.0 if self.full_range else 0.0
        luma_zero, luma_span, chroma_span = (0.0, most, most) if self.full_range else (16.0, 219.0, 224.0)
        depth = float(1 << (self.bits - 8))
        if self.full_range:
            luma_span = chroma_span = float((1 << self.bits) - 1)
        else:
            luma_zero, luma_span, chroma_span = luma_zero * depth, luma_span * depth, chroma_span * depth
        scale = np.array([255 / luma_span, 255 / chroma_span, 255 / chroma_span])
        zero = np.array([luma_zero, 128 * depth, 128 * depth])
        if self.matrix == "rgb":
            scale[1:], zero[1:] = scale[0], luma_zero
        matrix = _matrix(self.matrix) * scale
        return matrix, -matrix @ zero

    def rgb(self, width: int = 0, height: int = 0) -> NDArray[np.uint8]:
        """Return the picture in colour, uint8 ``[height, width, 3]`` RGB, scaled where a size is given.

        For eyes, not for the tower: chroma is interpolated where OpenCV's resize puts it.
        """
        import cv2

        size = (width or self.luma.shape[1], height or self.luma.shape[0])
        smaller = cv2.INTER_AREA if size[0] < self.luma.shape[1] else cv2.INTER_LINEAR
        planes = [np.ascontiguousarray(plane) for plane in (self.luma, *self.chroma)]
        scaled = [
            plane
            if plane.shape[::-1] == size
            else cv2.resize(plane, size, interpolation=smaller if size[0] < plane.shape[1] else cv2.INTER_LINEAR)
            for plane in planes
        ]
        matrix, offset = self.conversion()
        if not self.chroma:
            scaled, matrix, offset = scaled * 3, np.diag(matrix[:, 0]), matrix[:, 1:].sum(axis=1) * 0 + offset
        levels = cv2.transform(cv2.merge(scaled).astype(np.float32), np.column_stack([matrix, offset]))
        colours: NDArray[np.uint8] = np.clip(levels + 0.5, 0, 255).astype(np.uint8)
        return colours


def _matrix(name: Matrix) -> NDArray[np.float64]:
    """Red, green and blue from luma of 0 to 1 and chroma of -0.5 to 0.5."""
    match name:
        case "rgb":  # stored as green, blue, red
            return np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
        case "grey":
            return np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]])
        case "ycgco":
            return np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
        case _:
            red, blue = _SHARES[name]
            green = 1 - red - blue
            to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
            return np.array(
                [[1, 0, to_red], [1, -blue * to_blue / green, -red * to_red / green], [1, to_blue, 0]], np.float64
            )
