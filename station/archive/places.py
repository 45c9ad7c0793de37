"""The ground that a frame and each of its tiles show: from its footprint, or from the map that it was cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.pose.footprint import Place
from overflight.station.degrees import transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.records import Observation
    from overflight.runtime.window import Window

# The corners of a footprint in the picture, as pose/footprint.py orders them: x to the right, y down, in [0, 1].
_CORNERS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))


def place_of(observation: Observation) -> Place | None:
    """Return where a frame lies: its own place, or that of the window of a map that it was cut from."""
    if observation.place is not None or observation.window is None:
        return observation.place
    return window_place(observation.window)


def window_place(window: Window) -> Place | None:
    """Return the place of a window; its error is one pixel, for a map does not say how well it was surveyed."""
    if window.transform is None or window.epsg is None or (to_degrees := transformer(window.epsg)) is None:
        return None
    t = window.transform
    columns, rows = np.array([*_CORNERS, (0.5, 0.5)]).T * np.array([[window.width], [window.height]])
    lon, lat = to_degrees(t[0] + columns * t[1] + rows * t[2], t[3] + columns * t[4] + rows * t[5])
    if not np.isfinite([lon, lat]).all():
        return None
    ring = tuple((float(x), float(y)) for x, y in zip(lon[:4], lat[:4], strict=True))
    return Place(float(lat[4]), float(lon[4]), window.gsd_m or 0.0, ring, gsd_m=window.gsd_m)


def tile_places(place: Place | None, rows: int, columns: int) -> list[Place | None]:
    """Return the place of every tile of a grid, row by row from the top left.

    Flat ground seen by a camera is a projective image of the picture, so the four corners place every tile exactly.
    Where the footprint has another number of corners (cut at the horizon, or none), each tile has the frame's place.
    """
    if place is None or len(place.footprint) != 4:
        return [place] * (rows * columns)
    project = picture_to_ground(place.footprint)
    return [
        _placed(place, project, (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows))
        for row in range(rows)
        for column in range(columns)
    ]


def _placed(place: Place, project: NDArray[np.float64], box: tuple[float, float, float, float]) -> Place:
    left, top, right, bottom = box
    ring = tuple(_project(project, x, y) for x, y in ((left, bottom), (right, bottom), (right, top), (left, top)))
    lon_deg, lat_deg = _project(project, (left + right) / 2, (top + bottom) / 2)
    return msgspec.structs.replace(place, lat_deg=lat_deg, lon_deg=lon_deg, footprint=ring)


def picture_to_ground(ring: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Return the 3 x 3 matrix that maps the picture's corners to a footprint's (longitude, latitude).

    The eight equations of Hartley and Zisserman, "Multiple View Geometry", 2nd edition, section 4.1, with the last
    element 1. Coordinates are taken relative to the first corner: degrees alone would cost five digits.
    """
    origin = np.array(ring[0])
    rows, values = [], []
    for (x, y), corner in zip(_CORNERS, ring, strict=True):
        u, v = np.array(corner) - origin
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    matrix: NDArray[np.float64] = np.append(solved, 1.0).reshape(3, 3)
    matrix[:2] += origin[:, None] * matrix[2]
    return matrix


def _project(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    lon, lat, scale = matrix @ (x, y, 1.0)
    return float(lon / scale), float(lat / scale)
