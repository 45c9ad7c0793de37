"""Comparing two pictures or mosaics of one ground: grid, registration, embeddings, scores, labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import SourceError
from overflight.station.changes.pair import Grid
from overflight.station.changes.record import SCHEMA, Changes, Hashes, Limits, TileChange
from overflight.station.changes.register import Registration, register
from overflight.station.changes.score import FALSE_ALARM, Background, fit_background, hysteresis, other_light
from overflight.station.describe.describe import cover_group
from overflight.station.describe.fields import MARGIN
from overflight.station.ground.picture import open_picture
from overflight.station.ground.place import Placer
from overflight.station.ground.tiles import LEAST_KNOWN, filled, gsd_at, tile_edges, usual_tile_px

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Manifest
    from overflight.station.ground.picture import GroundPicture
    from overflight.station.ground.tiles import Embed

OVERVIEW_PX = 1024
LIGHT_TILES = 48  # of the pair itself, seen in other light


@dataclass(frozen=True)
class Compared:
    """The tiles of a registered pair: cells (row, column), grid boxes, unit embeddings ``[T, D]`` of both dates.

    ``views`` are the two pictures reduced to one size, RGB, for people.
    """

    grid: Grid
    registration: Registration
    cells: tuple[tuple[int, int], ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    shape: tuple[int, int]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    light: tuple[NDArray[np.float32], NDArray[np.float32]]
    missing: int
    views: tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Result:
    """Changes with what is needed to draw them."""

    changes: Changes
    compared: Compared


def compare_pictures(
    before: Path,
    after: Path,
    bank: LabelBank,
    manifest: Manifest,
    embed: Embed,
    *,
    background: Sequence[tuple[Path, Path]] = (),
    tile_px: int | None = None,
    gsd_m: float | None = None,
    false_alarm: float = FALSE_ALARM,
    margin: float = MARGIN,
) -> Result:
    """Compare two pictures. Raises UsageError where they cannot be registered, SourceError where one cannot be read."""
    pairs = [embed_given(one, other, manifest, embed, tile_px, gsd_m) for one, other in background]
    first, second = open_picture(before, gsd_m=gsd_m), open_picture(after, gsd_m=gsd_m)
    try:
        compared = embed_pair(first, second, manifest.resize.side, embed, tile_px, light=not pairs)
        fitted = (
            fit_background(pairs, false_alarm=false_alarm)
            if pairs
            else fit_background([compared.light], origin="light", false_alarm=false_alarm)
        )
        changes = summarise(compared, fitted, bank, manifest, false_alarm, margin)
    finally:
        first.close()
        second.close()
    return Result(changes, compared)


def embed_pair(
    first: GroundPicture, second: GroundPicture, side: int, embed: Embed, tile_px: int | None, *, light: bool = False
) -> Compared:
    """Lay the grid, check and correct the registration, and embed the tiles that both pictures know."""
    grid = Grid(first, second)
    tile_px = tile_px or usual_tile_px(grid.width, grid.height, side)
    registration = register_grid(grid, tile_px)
    if registration.state == "corrected":
        grid.shift = (registration.right_px, registration.down_px)
    tops, lefts = tile_edges(grid.height, tile_px), tile_edges(grid.width, tile_px)
    cells: list[tuple[int, int]] = []
    boxes: list[tuple[int, int, int, int]] = []
    one, two, own, lit = [], [], [], []
    every = max(1, (len(tops) - 1) * (len(lefts) - 1) // LIGHT_TILES)
    for row in range(len(tops) - 1):
        (a, known_a), (b, known_b) = grid.read(tops[row], 0, tops[row + 1], grid.width)
        for column in range(len(lefts) - 1):
            part = slice(lefts[column], lefts[column + 1])
            both = known_a[:, part] & known_b[:, part]
            if both.mean() < LEAST_KNOWN:
                continue
            tile = filled(a[:, part], both)
            vectors = embed([tile, filled(b[:, part], both)])
            if light and len(cells) % every == 0:
                lit.append(embed(other_light(tile)))
                own.append(np.repeat(vectors[:1], len(lit[-1]), axis=0))
            cells.append((row, column))
            boxes.append((tops[row], lefts[column], tops[row + 1], lefts[column + 1]))
            one.append(vectors[0])
            two.append(vectors[1])
    if not cells:
        raise SourceError(f"{first.name} and {second.name}: no tile is known in both; check their places")
    none = np.empty((0, len(one[0])), np.float32)
    return Compared(
        grid,
        registration,
        tuple(cells),
        tuple(boxes),
        (len(tops) - 1, len(lefts) - 1),
        np.stack(one),
        np.stack(two),
        (np.concatenate(own) if own else none, np.concatenate(lit) if lit else none),
        (len(tops) - 1) * (len(lefts) - 1) - len(cells),
        views_of(grid),
    )


def views_of(grid: Grid) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both pictures on the grid, reduced to ``OVERVIEW_PX``; what is not known is grey."""
    every = max(1.0, max(grid.width, grid.height) / OVERVIEW_PX)
    found = []
    for pixels, known in grid.read(0, 0, grid.height, grid.width, every=every):
        shown = pixels.copy()
        shown[~known] = 225
        found.append(shown)
    return found[0], found[1]


def summarise(
    compared: Compared, background: Background, bank: LabelBank, manifest: Manifest, false_alarm: float, margin: float
) -> Changes:
    """Score and label the tiles of a pair."""
    scores = background.scores(compared.before, compared.after)
    changed = hysteresis(scores, compared.cells, background.high, background.low)
    group = cover_group(bank, margin)
    labels = [
        tuple(group.judge(vector).label for vector in pair)
        for pair in zip(compared.before, compared.after, strict=True)
    ]
    grid = compared.grid
    first = grid.first
    tiles = _tiles(compared, scores, changed, labels)
    flips = Counter((tile.before or "", tile.after or "") for tile in tiles if tile.flip)
    areas = [tile.area_m2 for tile in tiles if tile.changed]
    known = [area for area in areas if area is not None] if first.ground is not None else []
    whole = sum(known) if first.ground is not None and len(known) == len(areas) else None
    error = None if whole is None or first.ground is None else _area_error(whole, tiles, first.ground.error)
    return Changes(
        schema=SCHEMA,
        before=first.name,
        after=grid.second.name,
        model=manifest.name,
        bank=bank.header.name,
        hashes=Hashes(manifest.tower, bank.sha256, first.sha256, grid.second.sha256),
        registration=compared.registration,
        limits=Limits(
            round(background.high, 5),
            round(background.low, 5),
            false_alarm,
            background.origin,
            background.tiles,
            len(background.directions),
        ),
        rows=compared.shape[0],
        columns=compared.shape[1],
        tiles=tiles,
        missing_tiles=compared.missing,
        changed_tiles=int(changed.sum()),
        changed_share=round(float(changed.mean()), 4),
        changed_area_m2=None if whole is None else float(f"{whole:.4g}"),
        area_error_m2=error,
        flips=tuple((before, after, count) for (before, after), count in flips.most_common()),
        notes=(*first.notes, *grid.second.notes),
    )


def _area_error(area_m2: float, tiles: Sequence[TileChange], gsd_error: float) -> float:
    """Return the error of a changed area with 95 %: its border runs through tiles, and the scale may be wrong."""
    changed = {(tile.row, tile.column) for tile in tiles if tile.changed}
    border = [
        tile.area_m2 or 0.0
        for tile in tiles
        if tile.changed
        and any((tile.row + i, tile.column + j) not in changed for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]
    return float(f"{np.hypot(sum(border) / 2, 2 * 1.96 * gsd_error * area_m2):.3g}")


def _tiles(
    compared: Compared,
    scores: NDArray[np.float64],
    changed: NDArray[np.bool_],
    labels: Sequence[tuple[str | None, ...]],
) -> tuple[TileChange, ...]:
    grid = compared.grid
    placer = Placer(grid.first)
    tiles = []
    for number, ((row, column), (top, left, bottom, right)) in enumerate(
        zip(compared.cells, compared.boxes, strict=True)
    ):
        x, y = grid.to_first(left, top)
        width, height = (right - left) * grid.step, (bottom - top) * grid.step
        gsd_m = gsd_at(grid.first, x + width / 2, y + height / 2)
        before, after = labels[number]
        tiles.append(
            TileChange(
                row=row,
                column=column,
                score=round(float(scores[number]), 5),
                changed=bool(changed[number]),
                before=before,
                after=after,
                flip=bool(changed[number]) and before is not None and after is not None and before != after,
                left_px=round(x),
                top_px=round(y),
                width_px=round(width),
                height_px=round(height),
                ring=placer.ring(x, y, width, height),
                area_m2=None if gsd_m is None else round(width * height * gsd_m**2, 3),
            )
        )
    return tuple(tiles)


def register_grid(grid: Grid, tile_px: int) -> Registration:
    """Register the pair on its overview, with shifts in pixels of the grid."""
    every = max(1.0, max(grid.width, grid.height) / OVERVIEW_PX)
    (a, known_a), (b, known_b) = grid.read(0, 0, grid.height, grid.width, every=every)
    names = f"{grid.first.name} and {grid.second.name}"
    return register(a, b, known_a & known_b, most_px=tile_px / 4, names=names, every=every)


def embed_given(
    one: Path, other: Path, manifest: Manifest, embed: Embed, tile_px: int | None, gsd_m: float | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed a background pair: the tiles ``[T, D]`` that both dates show."""
    first, second = open_picture(one, gsd_m=gsd_m), open_picture(other, gsd_m=gsd_m)
    try:
        found = embed_pair(first, second, manifest.resize.side, embed, tile_px)
        return found.before, found.after
    finally:
        first.close()
        second.close()
