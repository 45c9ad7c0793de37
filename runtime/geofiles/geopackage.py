"""GeoPackage 1.3 (OGC 12-128r18), written with SQLite alone: what QGIS opens first.

A viewer switches a GeoPackage to write-ahead logging even to read it, so it is built next to its name, without a log,
and renamed when whole.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from typing import TYPE_CHECKING

from overflight.runtime.geofiles.style import qml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from overflight.runtime.geofiles.geometry import Geometry
    from overflight.runtime.geofiles.layers import Layer, Value
    from overflight.runtime.geofiles.style import Style

APPLICATION_ID = 0x47504B47  # "GPKG"
VERSION = 10300
WGS84 = 4326

_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
  description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL UNIQUE, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
"""
_WGS84_WKT = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],'
    'AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],'
    'UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]]'
)
_SYSTEMS = [
    ("Undefined Cartesian", -1, "NONE", -1, "undefined", "undefined Cartesian coordinate reference system"),
    ("Undefined geographic", 0, "NONE", 0, "undefined", "undefined geographic coordinate reference system"),
    ("WGS 84", WGS84, "EPSG", WGS84, _WGS84_WKT, "longitude and latitude in degrees on WGS 84"),
]
_TIMES = ("utc", "began", "ended")


# The table in which QGIS keeps styles: it has no geometry, and is registered as attributes, as QGIS itself does.
_STYLES = """
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT,
  styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')));
INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES ('layer_styles', 'attributes',
  'layer_styles', 0);
"""


def write_geopackage(path: Path, layers: list[Layer], styles: Mapping[str, Style] | None = None) -> None:
    """Write each layer as a table of features in EPSG:4326, atomically; ``styles`` are by layer, for QGIS."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.executescript(_TABLES)
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", _SYSTEMS)
            for layer in layers:
                _write_layer(connection, layer)
            connection.execute("COMMIT")
            if styles:
                _write_styles(connection, styles)
        finally:
            connection.close()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write_layer(connection: sqlite3.Connection, layer: Layer) -> None:
    columns = list(layer.features[0].properties) if layer.features else []
    kinds = {feature.geometry.kind for feature in layer.features}
    kind = kinds.pop().upper() if len(kinds) == 1 else "GEOMETRY"
    bounds = [feature.geometry.bounds() for feature in layer.features]
    west, east, south, north = (f((b[i] for b in bounds), default=None) for i, f in enumerate((min, max, min, max)))
    fields = "".join(f', "{column}" {_type(column, layer)}' for column in columns)
    connection.execute(
        f'CREATE TABLE "{layer.name}" (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom {kind}{fields})'
    )
    connection.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id) "
        "VALUES (?, 'features', ?, ?, ?, ?, ?, ?)",
        (layer.name, layer.name, west, south, east, north, WGS84),
    )
    connection.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)", (layer.name, kind, WGS84))
    marks = ", ".join("?" * (len(columns) + 1))
    names = "".join(f', "{column}"' for column in columns)
    connection.executemany(
        f'INSERT INTO "{layer.name}" (geom{names}) VALUES ({marks})',  # noqa: S608 - our own column names
        ((_blob(f.geometry), *(f.properties[column] for column in columns)) for f in layer.features),
    )


def _write_styles(connection: sqlite3.Connection, styles: Mapping[str, Style]) -> None:
    connection.executescript(_STYLES)
    connection.executemany(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '')",
        ((name, name, qml(style)) for name, style in styles.items()),
    )


def _blob(geometry: Geometry) -> bytes:
    """Prefix well-known binary with GeoPackage's header: version 0, little-endian, with an x-y envelope."""
    return struct.pack("<2sBBi4d", b"GP", 0, 0b00000011, WGS84, *geometry.bounds()) + geometry.wkb()


def _type(column: str, layer: Layer) -> str:
    if column in _TIMES:
        return "DATETIME"
    value: Value = next((f.properties[column] for f in layer.features if f.properties[column] is not None), "")
    match value:
        case bool():
            return "BOOLEAN"
        case int():
            return "INTEGER"
        case float():
            return "REAL"
        case _:
            return "TEXT"
