"""The tiles of a description on a map: one feature a tile, with a style that QGIS applies by itself, and a table."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.geofiles.geojson import write_geojson
from overflight.runtime.geofiles.geometry import polygon
from overflight.runtime.geofiles.geopackage import write_geopackage
from overflight.runtime.geofiles.layers import Feature, Layer
from overflight.runtime.geofiles.style import Style
from overflight.runtime.geofiles.table import safe_cell
from overflight.station.words import label_name

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.geofiles.layers import Value
    from overflight.station.describe.describe import Described
    from overflight.station.words import Language

FORMATS = (".gpkg", ".geojson", ".csv")
UNKNOWN = "unknown"
# Colours that people tell apart with any colour vision (Okabe and Ito, 2008), then paler ones.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999933", "#882255",
           "#44aa99", "#aa4499", "#88ccee", "#ddcc77")  # fmt: skip
GREY = "#bbbbbb"


def export_tiles(described: Described, path: Path, language: Language) -> None:
    """Write the tiles in the format of the path's ending. Raises UsageError where a map format has no place."""
    match path.suffix.lower():
        case ".csv":
            write_table(described, path)
        case ".gpkg" | ".geojson":
            layer = tile_layer(described)
            if not layer.features:
                raise UsageError(f"{path}: {described.description.source} has no place on the map; write a .csv")
            if path.suffix.lower() == ".gpkg":
                write_geopackage(path, [layer], {"tiles": tile_style(described, language)})
            else:
                write_geojson(path, [layer])
        case ending:
            raise UsageError(f"{path}: ends in {ending!r}; expected one of {', '.join(FORMATS)}")


def tile_layer(described: Described) -> Layer:
    """Return a feature for each tile with a place."""
    rows = zip(described.tiles, _properties(described), strict=True)
    return Layer("tiles", [Feature(polygon(tile.ring), properties) for tile, properties in rows if tile.ring])


def tile_style(described: Described, language: Language) -> Style:
    """Return colours for the labels of the tiles; unknown tiles are grey."""
    labels = [one.label for one in described.description.cover if one.label is not None]
    values = {
        label: (label_name(label, language), PALETTE[number % len(PALETTE)]) for number, label in enumerate(labels)
    }
    return Style("label", {**values, UNKNOWN: (label_name(None, language), GREY)})


def write_table(described: Described, path: Path) -> None:
    """Write a row for each tile (RFC 4180), for dashboards; places are the middles of the tiles."""
    text = io.StringIO(newline="")
    rows = list(_properties(described))
    table = csv.writer(text)
    table.writerow(rows[0])
    table.writerows([safe_cell(value) for value in row.values()] for row in rows)
    write_atomically(path, text.getvalue().encode())


def _properties(described: Described) -> list[dict[str, Value]]:
    description = described.description
    found: list[dict[str, Value]] = []
    for number, tile in enumerate(described.tiles):
        lon, lat = (
            sum(corner[axis] for corner in tile.ring) / len(tile.ring) if tile.ring else None for axis in (0, 1)
        )
        found.append(
            {
                "tile": number,
                "row": tile.row,
                "column": tile.column,
                "label": described.labels[number] or UNKNOWN,
                "label_zh": label_name(described.labels[number], "zh"),
                "score": described.scores[number],
                "left_px": tile.left,
                "top_px": tile.top,
                "width_px": tile.width,
                "height_px": tile.height,
                "lon": None if lon is None else round(lon, 7),
                "lat": None if lat is None else round(lat, 7),
                "gsd_m": tile.gsd_m,
                "area_m2": None if tile.area_m2 is None else round(tile.area_m2, 2),
                "taken": description.taken_utc,
                "source": description.source,
                "model": description.hashes.model[:16],
                "bank": description.hashes.bank[:16],
            }
        )
    return found
