"""Tiles: a frame evaluated piece by piece as well as whole, so that small things keep their pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import UsageError
from overflight.runtime.planes import Planes

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

    from overflight.runtime.frame import Frame

MOST_TILES = 24  # one engine call holds them all: 4K in 6 x 4
SHRINK = 2.0  # a tile is made smaller by no more than this, when nothing tells how far the ground is
GSD_M = 0.5  # the finest ground sample distance of the scenes that aerial towers are trained on; finer needs no tiles


class TileGrid(msgspec.Struct, frozen=True):
    """What each tile shows, row by row from the top left: its label, None for unknown, and its best label's score."""

    rows: int
    columns: int
    labels: tuple[str | None, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How frames are split: into ``rows`` and ``columns``, or by their size and height where those are 0.

    By itself a tile is shrunk at most ``SHRINK`` times to the tower's input; where the ground sample distance is known,
    a frame is split until an input pixel covers ``GSD_M`` or less.
    """

    rows: int = 0
    columns: int = 0

    @classmethod
    def parse(cls, text: str) -> Tiling:
        """Read ``auto`` or ``3x4`` (rows by columns). Raises UsageError."""
        if text == "auto":
            return cls()
        found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)
        if found is None or int(found[1]) * int(found[2]) > MOST_TILES:
            raise UsageError(
                f"--tiles {text}: expected auto, or ROWSxCOLUMNS of {MOST_TILES} tiles at most, such as 3x4"
            )
        return cls(int(found[1]), int(found[2]))

    def grid(self, height: int, width: int, side: int, gsd_m: float | None) -> tuple[int, int]:
        """Return rows and columns for a frame; ``side`` is the tower's input and ``gsd_m`` metres per frame pixel."""
        if self.rows:
            return self.rows, self.columns
        # Never so many that a tile would have to be enlarged.
        shrink = SHRINK if gsd_m is None else max(1.0, GSD_M / gsd_m)
        rows, columns = (max(1, ceil(edge / (side * shrink) - 1e-9)) for edge in (height, width))
        affordable = [(r, min(columns, MOST_TILES // r)) for r in range(1, min(rows, MOST_TILES) + 1)]
        return min(affordable, key=lambda grid: max(height / grid[0], width / grid[1]))


def cut(picture: NDArray[uint8] | Planes, rows: int, columns: int) -> list[NDArray[uint8]] | list[Planes]:
    """Return views of a picture's tiles, row by row, all of one size; neighbours share a few pixels where they must."""
    height, width = picture.shape[:2]
    tall, wide = ceil(height / rows), ceil(width / columns)
    corners = [
        (top, left)
        for top in (round(i * (height - tall) / max(1, rows - 1)) for i in range(rows))
        for left in (round(i * (width - wide) / max(1, columns - 1)) for i in range(columns))
    ]
    if isinstance(picture, Planes):
        return [picture.crop(top, left, top + tall, left + wide) for top, left in corners]
    return [picture[top : top + tall, left : left + wide] for top, left in corners]


def window_gsd_m(frame: Frame) -> float | None:
    """Return the ground sample distance of a window of a mosaic, None for any other frame."""
    return None if frame.window is None else frame.window.gsd_m
