"""Where a picture's pixels lie on the earth, in longitude and latitude."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from overflight.station.archive.places import picture_to_ground
from overflight.station.degrees import transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.station.ground.picture import GroundPicture

    Points = NDArray[np.float64]


class Placer:
    """Maps pixels of one picture to degrees; ``known`` is False where nothing says where it lies."""

    def __init__(self, picture: GroundPicture) -> None:
        """Prepare the mapping. Raises MissingError without pyproj for a map system that is not in degrees."""
        self._picture = picture
        self._georeference = picture.georeference
        self._to_degrees = None
        found = self._georeference
        if found is not None and not (found.geographic and found.epsg in {None, 4326}):
            self._to_degrees = transformer(found.epsg) if found.epsg is not None else None
        footprint = () if picture.place is None else picture.place.footprint
        self._matrix = picture_to_ground(footprint) if len(footprint) == 4 else None

    @property
    def known(self) -> bool:
        """Whether pixels can be turned into degrees."""
        found = self._georeference
        if found is not None:
            return self._to_degrees is not None or found.geographic
        return self._matrix is not None

    def degrees(self, columns: Points, rows: Points) -> tuple[Points, Points]:
        """Return longitude and latitude of pixel positions, from the top left corner of the picture."""
        found = self._georeference
        if found is None:
            assert self._matrix is not None
            x, y = columns / self._picture.width, rows / self._picture.height
            ground = self._matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
            return (ground[0] / ground[2]).reshape(x.shape), (ground[1] / ground[2]).reshape(x.shape)
        t = found.transform
        x, y = t[0] + columns * t[1] + rows * t[2], t[3] + columns * t[4] + rows * t[5]
        if self._to_degrees is None:
            return x, y
        lon, lat = self._to_degrees(x, y)
        return np.asarray(lon), np.asarray(lat)

    def ring(self, left: float, top: float, width: float, height: float) -> tuple[tuple[float, float], ...]:
        """Return a rectangle's corners, (lon, lat), counter-clockwise on the ground; empty where not known."""
        if not self.known:
            return ()
        columns = np.array([left, left + width, left + width, left])
        rows = np.array([top + height, top + height, top, top])
        lon, lat = self.degrees(columns, rows)
        if not np.isfinite([lon, lat]).all():
            return ()
        ring = [(float(x), float(y)) for x, y in zip(lon, lat, strict=True)]
        twice = sum(
            a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)
        )  # a mirrored grid turns the other way
        return tuple(ring if twice > 0 else ring[::-1])


def metres_between(lon: Points, lat: Points, origin: tuple[float, float]) -> tuple[Points, Points]:
    """Return metres east and north of an origin (lon, lat), for the reach of one mosaic."""
    from overflight.runtime.geodesy import metres_per_degree

    north_m, east_m = metres_per_degree(origin[1])
    turn = (lon - origin[0] + 180.0) % 360.0 - 180.0
    narrowing = np.cos(np.radians(lat)) / math.cos(math.radians(origin[1]))
    return turn * east_m * narrowing, (lat - origin[1]) * north_m
