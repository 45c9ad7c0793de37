"""Coverage: which ground the cameras of one or many flights showed, how often, and how fine.

It says where a camera looked. It is not a probability of detection: what was shown may still have been missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import UsageError, missing_extra
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.geofiles.geometry import Geometry, polygon
from overflight.runtime.geofiles.layers import Feature, Layer
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.pose.footprint import Place

DEGREE_M = 111_320.0  # metres of a degree of latitude; areas of a few kilometres are right to 0.5 %
MOST_CELLS = 250_000
MAX_AREA_BYTES = 64 << 20
REACH_DEG = 0.5  # footprints farther apart than this are projected by themselves
Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Coverage:
    """The ground that was shown.

    ``covered_m2`` is the union of the footprints; ``area_m2`` the searched area and ``gaps_m2`` the part of it that no
    footprint shows, both absent without an area. ``frames`` counts the footprints, ``without_place`` the frames that
    have none. ``layers`` hold the union, the gaps and the cells for a map.
    """

    covered_m2: float
    area_m2: float | None
    gaps_m2: float | None
    frames: int
    without_place: int
    layers: tuple[Layer, ...]


def cover(flights: Iterable[Path], *, area: Ring | None = None, cell_m: float | None = None) -> Coverage:
    """Return the coverage of flight directories; ``area`` is the searched ring of (lon, lat).

    ``cell_m`` is the side of the cells in which looks are counted; by itself an eighth of a typical footprint. Stale
    places do not count. Raises UsageError where no frame has a footprint.
    """
    return cover_places(*_places(flights), area=area, cell_m=cell_m)


def cover_places(
    places: list[Place], without: int, *, area: Ring | None = None, cell_m: float | None = None
) -> Coverage:
    """Return the coverage of footprints; ``without`` counts the frames that have none."""
    if not places:
        raise UsageError(f"none of {without} frames has a footprint; fly with --pose and --camera")
    shapely = _shapely()
    regions = [
        _Region(shapely, group, None if number else area, cell_m) for number, group in enumerate(_grouped(places, area))
    ]
    layers: dict[str, Layer] = {}
    for region in regions:
        for layer in region.layers():
            layers.setdefault(layer.name, Layer(layer.name)).features.extend(layer.features)
    searched = regions[0].searched
    return Coverage(
        covered_m2=sum(float(region.union.area) for region in regions),
        area_m2=None if searched is None else float(searched.area),
        gaps_m2=None if searched is None else float(searched.difference(regions[0].union).area),
        frames=len(places),
        without_place=without,
        layers=tuple(layers.values()),
    )


class _Region:
    """Footprints within half a degree of each other, in metres from their middle."""

    def __init__(self, shapely: Any, places: list[Place], area: Ring | None, cell_m: float | None) -> None:
        self._shapely, self._places = shapely, places
        lat_deg = float(np.mean([place.lat_deg for place in places]))
        self._scale = np.array([DEGREE_M * cos(radians(lat_deg)), DEGREE_M])
        self._origin = np.array([np.mean([place.lon_deg for place in places]), lat_deg])
        self._shapes = shapely.make_valid(np.array([self._polygon(place.footprint) for place in places]))
        self.union = shapely.union_all(self._shapes)
        self.searched = None if area is None else shapely.make_valid(self._polygon(area))
        self._cell_m = cell_m or float(np.sqrt(np.median(shapely.area(self._shapes)))) / 8

    def layers(self) -> list[Layer]:
        """Return the layers that have a feature."""
        found = [Layer("covered", [Feature(shape, {"kind": "covered"}) for shape in self._degrees(self.union)])]
        if self.searched is not None:
            gaps = self._degrees(self.searched.difference(self.union))
            found.append(Layer("gaps", [Feature(shape, {"kind": "gap"}) for shape in gaps]))
        gsds_m = [place.gsd_m for place in self._places]
        cells = _cells(self._shapely, self._shapes, gsds_m, self._cell_m)
        found.append(Layer("cells", [Feature(self._degrees(shape)[0], values) for shape, values in cells]))
        return [layer for layer in found if layer.features]

    def _polygon(self, ring: Ring) -> Any:
        return self._shapely.polygons((np.array(ring) - self._origin) * self._scale)

    def _degrees(self, shape: Any) -> list[Geometry]:
        rings = _rings(self._shapely, shape)
        return [polygon(tuple(map(tuple, np.array(ring) / self._scale + self._origin))) for ring in rings]


def _grouped(places: list[Place], area: Ring | None) -> list[list[Place]]:
    """Part the places into regions half a degree wide; the first is the one of the searched area, if there is one."""
    groups: list[list[Place]] = []
    for place in places:
        near = (
            group
            for group in groups
            if abs(group[0].lat_deg - place.lat_deg) < REACH_DEG and abs(group[0].lon_deg - place.lon_deg) < REACH_DEG
        )
        group = next(near, None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    if area is not None:
        lon_deg, lat_deg = np.mean(np.array(area), axis=0)
        groups.sort(key=lambda group: abs(group[0].lat_deg - lat_deg) + abs(group[0].lon_deg - lon_deg))
        if abs(groups[0][0].lat_deg - lat_deg) > REACH_DEG or abs(groups[0][0].lon_deg - lon_deg) > REACH_DEG:
            raise UsageError(
                "--area: no footprint within 50 km of it; check that its coordinates are longitude, latitude"
            )
    return groups


def read_area(path: Path) -> Ring:
    """Read the outer ring of the one polygon of a GeoJSON file. Raises UsageError."""
    import msgspec

    try:
        found: Any = decode_json(read_regular(path, MAX_AREA_BYTES, UsageError), Any)
        while isinstance(found, dict) and found.get("type") != "Polygon":
            found = found["geometry"] if "geometry" in found else found["features"][0]
        ring = tuple((float(x), float(y)) for x, y, *_ in found["coordinates"][0])
    except (OSError, msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a polygon ({error}); expected GeoJSON with one polygon in WGS-84") from error
    if len(ring) < 4 or any(abs(lat) > 90 or abs(lon) > 360 for lon, lat in ring):
        raise UsageError(f"{path}: not a polygon in degrees; expected GeoJSON with longitude and latitude")
    return ring[:-1] if ring[0] == ring[-1] else ring


def _places(flights: Iterable[Path]) -> tuple[list[Place], int]:
    places: list[Place] = []
    without = 0
    for flight in flights:
        for observation in JournalReader(flight / JOURNAL).observations():
            if counts(observation.place):
                places.append(observation.place)
            else:
                without += 1
    return places, without


def counts(place: Place | None) -> TypeGuard[Place]:
    """Whether a place says which ground was shown: it has a footprint, of a pose that can be trusted."""
    return place is not None and len(place.footprint) >= 3 and not place.stale


def _cells(
    shapely: Any, shapes: NDArray[Any], gsds_m: Sequence[float | None], side_m: float
) -> list[tuple[Any, dict[str, Any]]]:
    """Return square cells with how many footprints show their middle, and the finest of those."""
    bounds = np.floor(shapely.bounds(shapes) / side_m).astype(np.int64)
    spans = (bounds[:, 2] - bounds[:, 0] + 1) * (bounds[:, 3] - bounds[:, 1] + 1)
    if spans.sum() > 20 * MOST_CELLS:
        raise UsageError(f"--cell {side_m:g}: about {spans.sum():,} cells; choose a larger cell")
    grids = [
        np.stack(np.meshgrid(np.arange(west, east + 1), np.arange(south, north + 1)), axis=-1).reshape(-1, 2)
        for west, south, east, north in bounds
    ]
    indices = np.unique(np.concatenate(grids), axis=0)
    if len(indices) > MOST_CELLS:
        raise UsageError(f"--cell {side_m:g}: {len(indices):,} cells, at most {MOST_CELLS:,}; choose a larger cell")
    middles = shapely.points((indices + 0.5) * side_m)
    cell, shown = shapely.STRtree(shapes).query(middles, predicate="intersects")
    looks = np.bincount(cell, minlength=len(middles))
    finest = np.full(len(middles), np.inf)
    np.minimum.at(finest, cell, np.array([np.inf if gsd is None else gsd for gsd in gsds_m])[shown])
    half = side_m / 2
    return [
        (
            shapely.box(point.x - half, point.y - half, point.x + half, point.y + half),
            {"looks": int(looks[number]), "gsd_m": None if np.isinf(finest[number]) else round(finest[number], 4)},
        )
        for number, point in enumerate(middles)
        if looks[number]
    ]


def _rings(shapely: Any, shape: Any) -> list[list[tuple[float, float]]]:
    """Return the rings of pieces without holes: a map file holds outer rings only, and a hole must stay a hole."""
    if shape.geom_type != "Polygon":
        return [ring for part in getattr(shape, "geoms", ()) for ring in _rings(shapely, part)]
    if shape.is_empty:
        return []
    if not shape.interiors:
        return [list(shape.exterior.coords)[:-1]]
    west, south, east, north = shape.bounds
    middle = shape.interiors[0].centroid.y
    halves = (shapely.box(west, south, east, middle), shapely.box(west, middle, east, north))
    return [ring for half in halves for ring in _rings(shapely, shape.intersection(half))]


def _shapely() -> Any:
    try:
        import shapely
    except ImportError as error:
        raise missing_extra("shapely", "station") from error
    return shapely
