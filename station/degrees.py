"""From the coordinates of a map system to longitude and latitude."""

from __future__ import annotations

from functools import cache
from typing import Any

from overflight.runtime.errors import missing_extra


@cache
def transformer(epsg: int) -> Any:
    """Return what turns a map system's coordinates into longitude and latitude; None for an unknown code."""
    try:
        import pyproj
    except ImportError as error:
        raise missing_extra("pyproj", "station") from error
    try:
        return pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform
    except pyproj.exceptions.CRSError:
        return None
