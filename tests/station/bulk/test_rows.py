"""Rows: places of windows against pyproj, and GeoParquet as another reader reads it.

Covers: station/bulk/rows.py
"""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from overflight.runtime.window import Window
from overflight.station.bulk.records import SCHEMA, Item, Settings
from overflight.station.bulk.rows import Rows, Where, corners_of, pyarrow, table_of, window_place

SETTINGS = Settings(SCHEMA, "", "", "t" * 64, "m", 3, 32, "onnxruntime-cpu", "fp32", "e" * 64, 4, 4)
ITEM = Item("still", "s", "n", "w")


@pytest.mark.parametrize(
    ("epsg", "x", "y", "step"),
    [(32611, 255_948.1, 4_110_511.2, 0.1), (32756, 334_000.0, 6_250_000.0, 0.1), (3857, 945_000.0, 6_000_000.0, 0.5),
     (4326, 8.5, 47.3, 1e-6)],
)  # fmt: skip
def test_a_window_lies_where_pyproj_puts_it(epsg: int, x: float, y: float, step: float) -> None:
    """Middle and corners, within a millimetre."""
    pyproj = pytest.importorskip("pyproj", reason="pyproj is the independent geodesy")
    place = window_place(Window(0, 0, 100, 60, (x, step, 0.0, y, 0.0, -step), epsg))
    assert place is not None
    lon, lat = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform(x + 50 * step, y - 30 * step)
    assert (place.lon_deg, place.lat_deg) == pytest.approx((lon, lat), abs=1e-8)
    assert len(place.corners) == 4
    area = sum(
        a[0] * b[1] - b[0] * a[1] for a, b in zip(place.corners, place.corners[1:] + place.corners[:1], strict=True)
    )
    assert area > 0  # counter-clockwise, as GeoParquet's readers expect


def test_a_system_that_is_not_known_has_no_place() -> None:
    """Rather none than a wrong one."""
    assert window_place(Window(0, 0, 10, 10, (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), 2056)) is None
    assert window_place(Window(0, 0, 10, 10)) is None


def test_places_are_geoparquet() -> None:
    """Polygons and points as WKB, with the metadata of GeoParquet 1.1; shapely reads them."""
    pytest.importorskip("pyarrow")
    rows = Rows()
    square = ((8.0, 47.0), (8.1, 47.0), (8.1, 47.1), (8.0, 47.1))
    for place in (Where(47.05, 8.05, square), Where(47.0, 8.0), None):
        rows.append(ITEM, "0" * 64, name="n", place=place)
        rows.vectors.append(np.array([1, 0, 0], np.float32))
    table = table_of(rows, SETTINGS)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Point", "Polygon"]
    assert geo["columns"]["geometry"]["bbox"] == [8.0, 47.0, 8.1, 47.1]
    polygon, point, nothing = table["geometry"].to_pylist()
    assert nothing is None and corners_of(polygon) == square and corners_of(point) == ()
    shapely = pytest.importorskip("shapely", reason="shapely is an independent reader")
    assert shapely.from_wkb(polygon).equals(shapely.Polygon(square))
    assert shapely.from_wkb(point).coords[0] == (8.0, 47.0)
    assert struct.unpack_from("<BI", point)[1] == 1


def test_half_stores_16_bits() -> None:
    """Half of the disk; the difference is below 0.0005."""
    pytest.importorskip("pyarrow")
    import msgspec

    rows = Rows()
    rows.append(ITEM, "0" * 64, name="n")
    rows.vectors.append(np.array([0.6, 0.8, 0.0], np.float32))
    table = table_of(rows, msgspec.structs.replace(SETTINGS, half=True))
    assert table.schema.field("embedding").type.value_type == pyarrow().float16()
    assert np.abs(np.array(table["embedding"].to_pylist()[0], np.float32) - [0.6, 0.8, 0.0]).max() < 5e-4


def test_a_shard_without_rows_has_the_same_columns() -> None:
    """All of its files failed: a reader of the whole store still sees one schema."""
    pytest.importorskip("pyarrow")
    rows = Rows()
    rows.append(ITEM, "0" * 64, name="n", gsd_m=0.1, utc_ns=1, media_ns=2, place=Where(1.0, 2.0))
    rows.vectors.append(np.zeros(3, np.float32))
    assert table_of(Rows(), SETTINGS).schema.equals(table_of(rows, SETTINGS).schema, check_metadata=False)
