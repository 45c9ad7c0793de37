"""Pictures and mosaics of one ground at several dates: one grid, registered on the first, embedded by tiles."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError, UsageError
from overflight.station.changes.compare import LIGHT_TILES, register_grid
from overflight.station.changes.pair import Grid
from overflight.station.changes.register import Registration
from overflight.station.changes.score import other_light
from overflight.station.ground.picture import GroundPicture, open_picture
from overflight.station.ground.place import Placer
from overflight.station.ground.tiles import LEAST_KNOWN, Tile, filled, gsd_at, tile_edges, usual_tile_px
from overflight.station.series.dates import Dated, date_in_name, date_of_moment, order
from overflight.station.series.follow import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.station.ground.tiles import Embed

VIEW_PX = 480  # the longer edge of a date's picture on the page


@dataclass(frozen=True)
class Shown:
    """One date of a series: when, the source with its hash, how it lay on the first, and a small picture, RGB."""

    dated: Dated
    source: str
    sha256: str
    registration: Registration
    view: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Seen:
    """The tiles of one ground over the dates; ``light`` are embeddings of tiles of the first date in other light."""

    dates: tuple[Shown, ...]
    tiles: tuple[Tile, ...]
    shape: tuple[int, int]
    stack: Stack
    light: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    gsd_error: float | None
    notes: tuple[str, ...]


def see_pictures(
    paths: Sequence[Path],
    given: Sequence[Dated],
    side: int,
    embed: Embed,
    *,
    tile_px: int | None = None,
    gsd_m: float | None = None,
    light: bool = True,
) -> Seen:
    """Read and embed the tiles of all dates, the earliest first.

    Raises UsageError where the dates have no order or a picture cannot be registered, SourceError where one cannot be
    read.
    """
    with ExitStack() as opened:
        pictures = []
        for path in paths:
            pictures.append(open_picture(path, gsd_m=gsd_m))
            opened.callback(pictures[-1].close)
        dates: list[Dated | None] = list(given) or [
            _date_of(path, picture) for path, picture in zip(paths, pictures, strict=True)
        ]
        places = order([path.name for path in paths], dates)
        ordered = [pictures[place] for place in places]
        grids = common_grids(ordered)
        tile_px = tile_px or usual_tile_px(grids[0].width, grids[0].height, side)
        registrations = [_registered(grid, tile_px) for grid in grids]
        stack, boxes, lit = _embed(grids, embed, tile_px, light=light)
        tiles = tuple(_tile(grids[0], cell, box) for cell, box in zip(stack.cells or (), boxes, strict=True))
        views = _views(grids)
        shown = [
            Shown(dated, picture.name, picture.sha256, registration, view)
            for dated, picture, registration, view in zip(
                [dates[place] for place in places],
                ordered,
                [Registration("exact", agreement=1.0), *registrations],
                views,
                strict=True,
            )
            if dated is not None
        ]
        shape = (len(tile_edges(grids[0].height, tile_px)) - 1, len(tile_edges(grids[0].width, tile_px)) - 1)
        ground = ordered[0].ground
        notes = tuple(dict.fromkeys(note for picture in ordered for note in picture.notes))
        return Seen(tuple(shown), tiles, shape, stack, lit, None if ground is None else ground.error, notes)


def common_grids(pictures: Sequence[GroundPicture]) -> list[Grid]:
    """Lay one grid over all pictures: the ground that the first shares with all, at the coarsest scale.

    Each returned grid pairs the first picture with a later one; all have the same pixels.
    """
    grids = [Grid(pictures[0], other) for other in pictures[1:]]
    step = max(grid.step for grid in grids)
    left, top = (max(grid.origin[axis] for grid in grids) for axis in (0, 1))
    right = min(grid.origin[0] + grid.width * grid.step for grid in grids)
    bottom = min(grid.origin[1] + grid.height * grid.step for grid in grids)
    width, height = int((right - left) / step), int((bottom - top) / step)
    if width < 1 or height < 1:
        names = ", ".join(picture.name for picture in pictures)
        raise UsageError(f"{names}: no ground is common to all dates; leave out the one that shows another place")
    for grid in grids:
        grid.step, grid.origin, grid.width, grid.height = step, (left, top), width, height
    return grids


def _date_of(path: Path, picture: GroundPicture) -> Dated | None:
    if picture.taken_utc_ns is not None:
        return date_of_moment(picture.taken_utc_ns, "tags")
    return date_in_name(path.stem)


def _registered(grid: Grid, tile_px: int) -> Registration:
    registration = register_grid(grid, tile_px)
    if registration.state == "corrected":
        grid.shift = (registration.right_px, registration.down_px)
    return registration


def _embed(
    grids: Sequence[Grid], embed: Embed, tile_px: int, *, light: bool
) -> tuple[Stack, list[tuple[int, int, int, int]], tuple[NDArray[np.float32], NDArray[np.float32]] | None]:
    """Embed the tiles that at least one date shows; ``boxes`` are (top, left, bottom, right) on the grid."""
    tops, lefts = (tile_edges(length, tile_px) for length in (grids[0].height, grids[0].width))
    every = max(1, (len(tops) - 1) * (len(lefts) - 1) // LIGHT_TILES)
    cells: list[tuple[int, int]] = []
    boxes: list[tuple[int, int, int, int]] = []
    known, vectors, own, lit = [], [], [], []
    for row in range(len(tops) - 1):
        pairs = [grid.read(tops[row], 0, tops[row + 1], grid.width) for grid in grids]
        reads = [pairs[0][0], *(later for _, later in pairs)]
        for column in range(len(lefts) - 1):
            part = slice(lefts[column], lefts[column + 1])
            shown = [bool(mask[:, part].mean() >= LEAST_KNOWN) for _, mask in reads]
            if not any(shown):
                continue
            tiles = [filled(pixels[:, part], mask[:, part]) for pixels, mask in reads]
            made = embed([tile for tile, is_shown in zip(tiles, shown, strict=True) if is_shown])
            found = np.zeros((len(shown), made.shape[1]), np.float32)
            found[shown] = made
            if light and shown[0] and len(cells) % every == 0:
                lit.append(embed(other_light(tiles[0])))
                own.append(np.repeat(made[:1], len(lit[-1]), axis=0))
            cells.append((row, column))
            boxes.append((tops[row], lefts[column], tops[row + 1], lefts[column + 1]))
            known.append(shown)
            vectors.append(found)
    if not cells:
        raise SourceError(f"{grids[0].first.name}: no tile of the common ground is known at any date")
    stack = Stack(np.stack(vectors, axis=1), np.array(known).T, tuple(cells))
    return stack, boxes, (np.concatenate(own), np.concatenate(lit)) if lit else None


def _tile(grid: Grid, cell: tuple[int, int], box: tuple[int, int, int, int]) -> Tile:
    top, left, bottom, right = box
    x, y = grid.to_first(left, top)
    width, height = (right - left) * grid.step, (bottom - top) * grid.step
    ring = Placer(grid.first).ring(x, y, width, height)
    gsd_m = gsd_at(grid.first, x + width / 2, y + height / 2)
    return Tile(*cell, round(x), round(y), round(width), round(height), 1.0, ring, gsd_m)


def _views(grids: Sequence[Grid]) -> list[NDArray[np.uint8]]:
    every = max(1.0, max(grids[0].width, grids[0].height) / VIEW_PX)
    reads = [grid.read(0, 0, grid.height, grid.width, every=every) for grid in grids]
    shown = []
    for pixels, known in [reads[0][0], *(later for _, later in reads)]:
        view = pixels.copy()
        view[~known] = 225
        shown.append(view)
    return shown
