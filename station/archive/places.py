"""The ground that a frame, a window of a mosaic, and each of their tiles show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.geodesy import from_utm
from overflight.runtime.geotiff.georeference import is_utm
from overflight.runtime.pose.footprint import Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.records import Observation
    from overflight.runtime.window import Window

_MERCATOR_RADIUS_M = 6378137.0

# The corners of a footprint in the picture, as pose/footprint.py orders them: x to the right, y down, in [0, 1].
_CORNERS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))


def place_of(observation: Observation) -> Place | None:
    """Return where what was seen lies: as it was observed, else as the mosaic says that the frame was cut from."""
    if observation.place is not None or observation.window is None:
        return observation.place
    return window_place(observation.window)


def window_place(window: Window) -> Place | None:
    """Return the ground of a window of a mosaic; None for a system that is not UTM, WGS 84 or web Mercator.

    Its ``error_m`` is 0: a mosaic does not say how exact it is. The corners are in a footprint's order in the picture.
    """
    if window.transform is None:
        return None
    columns, rows = (np.array([*(corner[axis] for corner in _CORNERS), 0.5]) for axis in (0, 1))
    x0, x_column, x_row, y0, y_column, y_row = window.transform
    x = x0 + columns * window.width * x_column + rows * window.height * x_row
    y = y0 + columns * window.width * y_column + rows * window.height * y_row
    if is_utm(window.epsg):
        assert window.epsg is not None
        lat, lon = from_utm(x, y, window.epsg)
    elif window.epsg == 4326:
        lat, lon = y, x
    elif window.epsg == 3857:
        lat = np.degrees(2 * np.arctan(np.exp(y / _MERCATOR_RADIUS_M)) - np.pi / 2)
        lon = np.degrees(x / _MERCATOR_RADIUS_M)
    else:
        return None
    if not (np.isfinite(lat).all() and np.isfinite(lon).all() and np.abs(lat).max() <= 90):
        return None
    ring = tuple((float(a), float(b)) for a, b in zip(lon[:4], lat[:4], strict=True))
    return Place(float(lat[4]), float(lon[4]), 0.0, ring, window.gsd_m)


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
