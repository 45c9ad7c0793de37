"""Rows: the columns of a shard as they grow, and their Parquet table with places as GeoParquet."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from overflight.runtime.errors import missing_extra
from overflight.runtime.geodesy import from_utm
from overflight.runtime.geotiff.georeference import is_utm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from overflight.runtime.window import Window
    from overflight.station.bulk.records import Item, Settings

GROUP_ROWS = 4096  # of a row group: 6 MB of embeddings, so that a long video can be read in parts
_RADIUS_M = 6378137.0
_LITTLE_ENDIAN, _POINT, _POLYGON = 1, 1, 3

Corner = tuple[float, float]  # longitude, latitude in degrees


class Where(NamedTuple):
    """Where a row is: its middle, and the corners of its ground counter-clockwise, none where only a point is known."""

    lat_deg: float
    lon_deg: float
    corners: tuple[Corner, ...] = ()


@dataclass
class Rows:
    """The columns of a shard. ``vectors`` are unit embeddings, one row each."""

    names: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    windows: list[tuple[int, int, int, int] | None] = field(default_factory=list)
    media_ns: list[int | None] = field(default_factory=list)
    utc_ns: list[int | None] = field(default_factory=list)
    gsd_m: list[float | None] = field(default_factory=list)
    places: list[Where | None] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def append(
        self,
        item: Item,
        content: str,
        *,
        name: str,
        frame: int = 0,
        window: Window | None = None,
        media_ns: int | None = None,
        utc_ns: int | None = None,
        gsd_m: float | None = None,
        place: Where | None = None,
    ) -> None:
        """Add a row; its embedding is added by the embedder."""
        self.names.append(name)
        self.sources.append(item.source)
        self.kinds.append(item.kind)
        self.contents.append(content)
        self.frames.append(frame)
        self.windows.append(None if window is None else (window.left, window.top, window.width, window.height))
        self.media_ns.append(media_ns)
        self.utc_ns.append(utc_ns)
        self.gsd_m.append(gsd_m if window is None else window.gsd_m)
        self.places.append(place if window is None else window_place(window))

    def truncate(self, length: int) -> None:
        """Remove the rows from ``length`` on."""
        for column in vars(self).values():
            del column[length:]


def window_place(window: Window) -> Where | None:
    """Return the ground of a window of a mosaic in degrees; None for a system that is not UTM, WGS 84 or Mercator."""
    if window.transform is None or window.epsg is None:
        return None
    x0, x_column, x_row, y0, y_column, y_row = window.transform
    columns = np.array([0, 0, window.width, window.width, window.width / 2], np.float64)
    rows = np.array([0, window.height, window.height, 0, window.height / 2], np.float64)
    x, y = x0 + columns * x_column + rows * x_row, y0 + columns * y_column + rows * y_row
    if is_utm(window.epsg):
        lat, lon = from_utm(x, y, window.epsg)
    elif window.epsg == 4326:
        lat, lon = y, x
    elif window.epsg == 3857:
        lat, lon = np.degrees(2 * np.arctan(np.exp(y / _RADIUS_M)) - np.pi / 2), np.degrees(x / _RADIUS_M)
    else:
        return None
    corners = tuple((float(a), float(b)) for a, b in zip(lon[:4], lat[:4], strict=True))
    if _area(corners) < 0:  # a picture whose rows run north
        corners = corners[::-1]
    return Where(float(lat[4]), float(lon[4]), corners)


def table_of(rows: Rows, settings: Settings) -> Any:
    """Return the rows as a pyarrow table, with GeoParquet's metadata in its schema."""
    arrow = pyarrow()
    number = np.float16 if settings.half else np.float32
    vectors = np.stack(rows.vectors).astype(number) if rows.vectors else np.empty((0, settings.width), number)
    windows = rows.windows
    columns = {
        "name": arrow.array(rows.names, arrow.string()),
        "source": arrow.array(rows.sources, arrow.string()),
        "kind": arrow.array(rows.kinds, arrow.string()),
        "content_sha256": arrow.array(rows.contents, arrow.string()),
        "frame": arrow.array(rows.frames, arrow.int64()),
        **{
            edge: arrow.array([None if one is None else one[place] for one in windows], arrow.int32())
            for place, edge in enumerate(("left", "top", "width", "height"))
        },
        "media_ns": arrow.array(rows.media_ns, arrow.int64()),
        "utc_ns": arrow.array(rows.utc_ns, arrow.int64()),
        "gsd_m": arrow.array(rows.gsd_m, arrow.float64()),
        "lat_deg": arrow.array([None if one is None else one.lat_deg for one in rows.places], arrow.float64()),
        "lon_deg": arrow.array([None if one is None else one.lon_deg for one in rows.places], arrow.float64()),
        "geometry": arrow.array([None if one is None else _wkb(one) for one in rows.places], arrow.binary()),
        "embedding": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), settings.width),
    }
    metadata = {
        "geo": json.dumps(_geo(rows.places)),
        "overflight": json.dumps({"tower": settings.tower, "model": settings.model, "engine": settings.engine_sha256}),
    }
    return arrow.table(columns).replace_schema_metadata(metadata)


def pyarrow() -> ModuleType:
    """Import pyarrow. Raises MissingError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "bulk") from error
    module: ModuleType = pyarrow
    return module


def _geo(places: Sequence[Where | None]) -> dict[str, object]:
    """GeoParquet 1.1: which column is the geometry, its encoding and kinds. Without a CRS it is longitude, latitude."""
    known = [place for place in places if place is not None]
    kinds = sorted({"Polygon" if place.corners else "Point" for place in known})
    column: dict[str, object] = {"encoding": "WKB", "geometry_types": kinds}
    points = [point for place in known for point in (place.corners or ((place.lon_deg, place.lat_deg),))]
    if points:
        lons, lats = [lon for lon, _ in points], [lat for _, lat in points]
        column["bbox"] = [min(lons), min(lats), max(lons), max(lats)]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _wkb(place: Where) -> bytes:
    if not place.corners:
        return struct.pack("<BIdd", _LITTLE_ENDIAN, _POINT, place.lon_deg, place.lat_deg)
    ring = (*place.corners, place.corners[0])
    head = struct.pack("<BIII", _LITTLE_ENDIAN, _POLYGON, 1, len(ring))
    return head + b"".join(struct.pack("<dd", *corner) for corner in ring)


def corners_of(wkb: bytes | None) -> tuple[Corner, ...]:
    """Return the corners of a polygon as this module writes it, the first not repeated; none of anything else."""
    head = struct.Struct("<BIII")
    if wkb is None or len(wkb) < head.size:
        return ()
    order, kind, rings, count = head.unpack_from(wkb)
    if (order, kind, rings) != (_LITTLE_ENDIAN, _POLYGON, 1) or not 4 <= count == (len(wkb) - head.size) / 16:
        return ()
    numbers = struct.unpack_from(f"<{2 * count - 2}d", wkb, head.size)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _area(ring: Sequence[Corner]) -> float:
    after = [*ring[1:], ring[0]]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, after, strict=True)) / 2
