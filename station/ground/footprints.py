"""Footprints of tiles: which show one ground, and how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Ring = tuple[tuple[float, float], ...]
LEAST_OVERLAP = 0.3  # of two footprints: their common ground over the ground of both


def same_tiles(earlier: Sequence[Ring], later: Sequence[Ring]) -> NDArray[np.int64]:
    """Return for each later ring the earlier one that shows the most of its ground; -1 for none."""
    import shapely

    rows = [row for row, ring in enumerate(earlier) if len(ring) > 2]
    shapes = [shapely.polygons(earlier[row]) for row in rows]
    tree = shapely.STRtree(shapes)
    found = np.full(len(later), -1)
    for number, ring in enumerate(later):
        if len(ring) > 2:
            shape = shapely.polygons(ring)
            near = [(_share(shape, shapes[place]), rows[place]) for place in tree.query(shape)]
            best = max(near, default=(0.0, -1))
            found[number] = best[1] if best[0] >= LEAST_OVERLAP else -1
    return found


def overlap(one: Ring, other: Ring) -> float:
    """Return the common ground of two footprints over the ground of both."""
    import shapely

    return _share(shapely.polygons(one), shapely.polygons(other))


def _share(one: object, other: object) -> float:
    """Return the common ground over the ground of both; degrees do, for both lie at one place."""
    import shapely

    common = shapely.area(shapely.intersection(one, other))
    return float(common / max(1e-18, shapely.area(one) + shapely.area(other) - common))
