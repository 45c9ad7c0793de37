"""Where a TIFF file lies on the earth: every place that GDAL reads it from, in GDAL's order.

That order is: the ``.aux.xml`` file next to the picture, the GeoTIFF tags (OGC 19-008r4), a world file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import OverflightError, SourceError
from overflight.runtime.geodesy import metres_per_degree

if TYPE_CHECKING:
    from pathlib import Path

Transform = tuple[float, float, float, float, float, float]

_SCALE, _TIE_POINTS, _MATRIX, _KEYS, _DOUBLES, _TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
_MODEL, _RASTER, _CITATION, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 1026, 2048, 3072
_PROJECTED_CITATION, _PROJECTION, _UNIT, _UNIT_SIZE = 3073, 3074, 3076, 3077
_USER_DEFINED, _PIXEL_IS_POINT, _MODEL_PROJECTED, _MODEL_GEOGRAPHIC = 32767, 2, 1, 2
_METRES = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937, 9036: 1000.0}
_MAX_SIDE_BYTES = 1 << 20
_EPSG = re.compile(r'(?:AUTHORITY|ID)\["EPSG",\s{0,4}"?(\d{4,5})"?\]')
_UTM = re.compile(r"WGS[ _]?(?:19)?84.{0,12}UTM[ _]zone[ _](\d{1,2})[ _]?([NS])", re.IGNORECASE)
_AUX_TRANSFORM = re.compile(r"<GeoTransform>([^<]{1,400})</GeoTransform>")
_AUX_SYSTEM = re.compile(r"<SRS[^>]{0,200}>([^<]{1,20000})</SRS>")
_WORLD_ENDINGS = (".tfw", ".tifw", ".tiffw", ".wld")


@dataclass(frozen=True)
class Georeference:
    """From a picture's column and row to the ground, as GDAL writes it, with the EPSG code where the file has one.

    ``unit_m`` is how many metres one unit of a projected system is; None for degrees and for systems not known.
    """

    transform: Transform
    epsg: int | None = None
    geographic: bool = False
    unit_m: float | None = None

    def at(self, left: int, top: int) -> Transform:
        """Return the transform of a window that begins at a column and row."""
        x, across_x, down_x, y, across_y, down_y = self.transform
        return (
            x + left * across_x + top * down_x, across_x, down_x, y + left * across_y + top * down_y, across_y, down_y
        )  # fmt: skip

    def gsd_m(self, column: float, row: float) -> float | None:
        """Return how many metres of ground a pixel covers there, in the coarser direction; None where not known."""
        _, across_x, down_x, _, across_y, down_y = self.transform
        if self.geographic:
            north_m, east_m = metres_per_degree(self.at(round(column), round(row))[3])
        elif self.epsg == 3857:  # its metres are true at the equator alone
            lat = 2 * math.atan(math.exp(self.at(round(column), round(row))[3] / 6378137.0)) - math.pi / 2
            north_m = east_m = math.cos(lat)
        elif self.unit_m is not None:
            north_m = east_m = self.unit_m
        else:
            return None
        return max(math.hypot(across_x * east_m, across_y * north_m), math.hypot(down_x * east_m, down_y * north_m))


def read_georeference(page: Any, path: Path) -> tuple[Georeference | None, tuple[str, ...]]:
    """Return where a picture lies, or None, and notes on what was assumed. Raises SourceError for a broken mapping."""
    notes: list[str] = []
    keys = _geo_keys(page)
    epsg, geographic, unit_m = _system(keys)
    aux, aux_epsg = _aux(path)
    internal = _internal(page, keys.get(_RASTER) == _PIXEL_IS_POINT, notes)
    for transform in (aux, internal, _world(path)):
        if transform is None:
            continue
        if not all(map(math.isfinite, transform)) or not _area(transform):
            numbers = ", ".join(f"{number:g}" for number in transform)
            raise SourceError(
                f"{path}: its georeference {numbers} maps no pixel to the ground; correct it, or remove it: "
                f"gdal_translate -co PROFILE=BASELINE {path} new.tif"
            )
        if transform is aux and aux_epsg is not None:
            epsg, geographic, unit_m = aux_epsg, aux_epsg == 4326, 1.0 if is_utm(aux_epsg) else None
        if epsg is None and not geographic:
            notes.append("no EPSG code in its georeference, so its coordinates cannot be turned into degrees")
        return Georeference(transform, epsg, geographic, unit_m), tuple(notes)
    return None, tuple(notes)


def is_utm(epsg: int | None) -> bool:
    """Say whether a code is a zone of UTM on WGS 84, in metres."""
    return epsg is not None and (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760)


def _area(transform: Transform) -> float:
    return abs(transform[1] * transform[5] - transform[2] * transform[4])


def _internal(page: Any, pixel_is_point: bool, notes: list[str]) -> Transform | None:
    """Read the tags: scale with a tie point, a matrix, or tie points alone, to which an affine mapping is fitted."""
    scale, ties, matrix = (_doubles(page, code) for code in (_SCALE, _TIE_POINTS, _MATRIX))
    if len(scale) >= 2 and scale[0] and scale[1] and len(ties) >= 6:
        column, row, _, x, y, _ = ties[:6]
        down = -abs(scale[1])  # as GDAL: a negative scale is a mistake of the writer
        transform = (x - column * scale[0], scale[0], 0.0, y - row * down, 0.0, down)
    elif len(matrix) == 16:
        transform = (matrix[3], matrix[0], matrix[1], matrix[7], matrix[4], matrix[5])
    elif len(ties) >= 18:
        fitted = _fit(np.array(ties[: len(ties) // 6 * 6]).reshape(-1, 6), notes)
        if fitted is None:
            return None
        transform = fitted
    else:
        return None
    if pixel_is_point:  # the tie is the middle of a pixel, not its corner
        x, across_x, down_x, y, across_y, down_y = transform
        return x - (across_x + down_x) / 2, across_x, down_x, y - (across_y + down_y) / 2, across_y, down_y
    return transform


def _fit(ties: np.ndarray[Any, np.dtype[np.float64]], notes: list[str]) -> Transform | None:
    """Fit an affine mapping to ground control points by least squares."""
    if not np.isfinite(ties).all():
        return None
    known = np.column_stack([np.ones(len(ties)), ties[:, 0], ties[:, 1]])
    solved, _, rank, _ = np.linalg.lstsq(known, ties[:, 3:5], rcond=None)
    if rank < 3:
        return None
    notes.append(f"its georeference is {len(ties)} control points; an affine mapping was fitted to them")
    (x, y), (across_x, across_y), (down_x, down_y) = solved.tolist()
    return x, across_x, down_x, y, across_y, down_y


def _doubles(page: Any, code: int) -> tuple[float, ...]:
    value = page.tags.valueof(code, default=())
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return ()


def _geo_keys(page: Any) -> dict[int, int | float | str]:
    """Return the GeoTIFF keys, each from where its entry says its value lies."""
    raw = page.tags.valueof(_KEYS, default=())
    doubles, texts = _doubles(page, _DOUBLES), page.tags.valueof(_TEXTS, default="")
    keys: dict[int, int | float | str] = {}
    numbers = tuple(raw) if isinstance(raw, (tuple, list, np.ndarray)) else ()
    for i in range(4, len(numbers) - 3, 4):
        key, where, count, value = (int(number) for number in numbers[i : i + 4])
        if where == 0:
            keys[key] = value
        elif where == _DOUBLES and value < len(doubles):
            keys[key] = doubles[value]
        elif where == _TEXTS and isinstance(texts, str):
            keys[key] = texts[value : value + count].rstrip("|\0")
    return keys


def _system(keys: dict[int, int | float | str]) -> tuple[int | None, bool, float | None]:
    """Return (EPSG code, whether its units are degrees, metres per unit)."""
    model, geographic, projected = keys.get(_MODEL), _code(keys, _GEOGRAPHIC), _code(keys, _PROJECTED)
    if model == _MODEL_GEOGRAPHIC or (model != _MODEL_PROJECTED and projected is None and geographic is not None):
        return geographic, True, None
    if projected is None:
        projected = _utm(keys, geographic)
    unit = keys.get(_UNIT)
    unit_m = _METRES.get(unit) if isinstance(unit, int) else None
    stated = keys.get(_UNIT_SIZE)
    if unit == _USER_DEFINED and isinstance(stated, float) and stated > 0:
        unit_m = stated
    if unit_m is None and is_utm(projected):
        unit_m = 1.0
    return projected, False, unit_m


def _code(keys: dict[int, int | float | str], key: int) -> int | None:
    value = keys.get(key)
    return value if isinstance(value, int) and 1024 <= value < _USER_DEFINED else None


def _utm(keys: dict[int, int | float | str], geographic: int | None) -> int | None:
    """Recognise a zone of UTM that is described rather than named by its code."""
    projection = keys.get(_PROJECTION)
    if isinstance(projection, int) and geographic in {4326, None} and 16001 <= projection <= 16160:
        return projection + 16600  # 16001 is zone 1 north, 32601 its system
    for key in (_PROJECTED_CITATION, _CITATION):
        if found := _UTM.search(str(keys.get(key, ""))[:1000]):
            return (32600 if found[2] in "Nn" else 32700) + int(found[1])
    return None


def _aux(path: Path) -> tuple[Transform | None, int | None]:
    """Read GDAL's file next to the picture."""
    text = _side_file(path.with_name(path.name + ".aux.xml"))
    found = _AUX_TRANSFORM.search(text)
    if found is None:
        return None, None
    try:
        numbers = [float(part) for part in found[1].split(",")]
    except ValueError:
        return None, None
    if len(numbers) != 6:
        return None, None
    system = _AUX_SYSTEM.search(text)
    codes = _EPSG.findall(system[1].replace("&quot;", '"')) if system else []
    return (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]), int(codes[-1]) if codes else None


def _world(path: Path) -> Transform | None:
    """Read a world file: six numbers, the last two the middle of the top left pixel."""
    for ending in _WORLD_ENDINGS:
        for side in (path.with_suffix(ending), path.with_suffix(ending.upper())):
            try:
                numbers = [float(word.replace(",", ".")) for word in _side_file(side).split()[:6]]
            except ValueError:
                continue
            if len(numbers) == 6:
                across_x, across_y, down_x, down_y, x, y = numbers
                return x - (across_x + down_x) / 2, across_x, down_x, y - (across_y + down_y) / 2, across_y, down_y
    return None


def _side_file(path: Path) -> str:
    try:
        return read_regular(path, _MAX_SIDE_BYTES).decode("utf-8", "replace")
    except (OSError, OverflightError):
        return ""
