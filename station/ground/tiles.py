"""The tiles of a picture: equal parts that cover it, each embedded where enough of it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError, UsageError
from overflight.station.ground.place import Placer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.station.ground.picture import GroundPicture

    Embed = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]

LEAST_KNOWN = 0.5  # share of a tile that must have a picture: at the border of a mosaic the rest says nothing
MOST_TILES = 40_000
ALONG_EDGE = 8  # tiles along the shorter edge of a picture, where they would not fall below half of the tower's input


@dataclass(frozen=True)
class Tile:
    """One part of a picture in its pixels: ``known`` is the share that has a picture, ``ring`` its ground in degrees.

    ``gsd_m`` is the ground sample distance there, None where it is not known.
    """

    row: int
    column: int
    left: int
    top: int
    width: int
    height: int
    known: float
    ring: tuple[tuple[float, float], ...]
    gsd_m: float | None

    @property
    def area_m2(self) -> float | None:
        """The ground that its known part covers."""
        return None if self.gsd_m is None else self.width * self.height * self.known * self.gsd_m**2


@dataclass(frozen=True)
class Tiles:
    """The tiles of one picture and the unit embeddings ``[T, D]`` of those that are known well enough.

    ``missing`` counts the tiles without enough picture.
    """

    rows: int
    columns: int
    tiles: tuple[Tile, ...]
    embeddings: NDArray[np.float32]
    missing: int


def tile_edges(length: int, tile_px: int) -> list[int]:
    """Return where tiles of about ``tile_px`` begin and end along an edge, in pixels."""
    count = max(1, round(length / tile_px))
    return [round(number * length / count) for number in range(count + 1)]


def usual_tile_px(width: int, height: int, side: int) -> int:
    """Return the size of tiles where none is asked for.

    A small picture has eight along its shorter edge, but none is enlarged more than twice; a large one has tiles of
    twice the tower's input.
    """
    return min(max(side // 2, round(min(width, height) / ALONG_EDGE)), 2 * side)


def read_tiles(picture: GroundPicture, embed: Embed, side: int, tile_px: int | None = None) -> Tiles:
    """Read and embed the tiles of a picture. Raises UsageError for too many, SourceError where nothing is known."""
    tile_px = tile_px or usual_tile_px(picture.width, picture.height, side)
    tops, lefts = tile_edges(picture.height, tile_px), tile_edges(picture.width, tile_px)
    count = (len(tops) - 1) * (len(lefts) - 1)
    if count > MOST_TILES:
        raise UsageError(f"--tile {tile_px}: {count:,} tiles, at most {MOST_TILES:,} are made; choose larger tiles")
    placer = Placer(picture)
    tiles: list[Tile] = []
    vectors: list[NDArray[np.float32]] = []
    for row in range(len(tops) - 1):
        pixels, known = picture.read(tops[row], 0, tops[row + 1], picture.width)  # one row of tiles is in memory
        for column in range(len(lefts) - 1):
            left, right = lefts[column], lefts[column + 1]
            mask = known[:, left:right]
            share = float(mask.mean())
            if share < LEAST_KNOWN:
                continue
            vectors.append(embed([filled(pixels[:, left:right], mask)])[0])
            width, height = right - left, tops[row + 1] - tops[row]
            ring = placer.ring(left, tops[row], width, height)
            gsd_m = gsd_at(picture, left + width / 2, tops[row] + height / 2)
            tiles.append(Tile(row, column, left, tops[row], width, height, share, ring, gsd_m))
    if not tiles:
        raise SourceError(f"{picture.name}: no tile of {tile_px} px has a picture in half of it; choose another file")
    return Tiles(len(tops) - 1, len(lefts) - 1, tuple(tiles), np.stack(vectors), count - len(tiles))


def gsd_at(picture: GroundPicture, column: float, row: float) -> float | None:
    """Return the ground sample distance at a pixel; in a map's degrees it varies over the picture."""
    ground = picture.ground
    if ground is None or ground.origin != "georeference" or picture.georeference is None:
        return None if ground is None else ground.gsd_m
    return picture.georeference.gsd_m(column, row)


def filled(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give missing pixels the mean colour of the others, so that the border of a mosaic is not taken for a thing."""
    if known.all() or not known.any():
        return np.ascontiguousarray(pixels)
    whole: NDArray[np.uint8] = pixels.copy()
    whole[~known] = pixels[known].mean(axis=0).round().astype(np.uint8)
    return whole
