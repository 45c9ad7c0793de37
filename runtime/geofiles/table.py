"""A table for everything else: CSV with the geometry as well-known text."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from overflight.runtime.durable import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.geofiles.layers import Layer

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, layers: list[Layer]) -> None:
    """Write all layers in one table (RFC 4180), UTF-8; ``lon`` and ``lat`` are set for points."""
    columns: dict[str, None] = {}
    for layer in layers:
        columns.update(dict.fromkeys(layer.features[0].properties))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["layer", "lat", "lon", *columns, "wkt"])
    for layer in layers:
        for feature in layer.features:
            place = feature.geometry.parts[0][0] if feature.geometry.kind == "Point" else None
            lat, lon = (f"{place[1]:.7f}", f"{place[0]:.7f}") if place else ("", "")
            values = [safe_cell(feature.properties.get(column)) for column in columns]
            table.writerow([layer.name, lat, lon, *values, feature.geometry.wkt()])
    write_atomically(path, text.getvalue().encode())


def safe_cell(value: object) -> object:
    """Keep a label that begins like a formula from being run by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
