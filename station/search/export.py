"""The hits of a search as files for other programs: GeoJSON, GeoPackage, CSV, and KMZ with photos."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import TYPE_CHECKING, Literal

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.geofiles.geojson import write_geojson
from overflight.runtime.geofiles.geometry import point
from overflight.runtime.geofiles.geopackage import write_geopackage
from overflight.runtime.geofiles.kml import xml_text
from overflight.runtime.geofiles.layers import Feature, Layer, iso
from overflight.runtime.geofiles.table import safe_cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overflight.runtime.geofiles.layers import Value
    from overflight.station.search.ranking import Hit
    from overflight.station.search.wall import Picture

Format = Literal["geojson", "gpkg", "csv", "kmz"]
FORMATS: tuple[Format, ...] = ("geojson", "gpkg", "csv", "kmz")


def check_formats(paths: Sequence[Path]) -> None:
    """Raise UsageError for a path whose ending names no format."""
    for path in paths:
        if path.suffix.lower() not in {".json", *(f".{name}" for name in FORMATS)}:
            raise UsageError(f"{path}: ends in {path.suffix!r}; expected one of .{', .'.join(FORMATS)}")


def export_hits(hits: Sequence[Hit], pictures: Sequence[Picture], path: Path, title: str) -> int:
    """Write the hits in the format of the path's ending; return how many have no place.

    A CSV holds every hit; the map formats those with a place. Without hits the file says so by being empty: an older
    file of that name would be taken for the answer.
    """
    located = [hit for hit in hits if hit.lat_deg is not None and hit.lon_deg is not None]
    layer = Layer("hits", [Feature(point(hit.lon_deg or 0.0, hit.lat_deg or 0.0), properties(hit)) for hit in located])
    match path.suffix.lower():
        case ".geojson" | ".json":
            write_geojson(path, [layer])
        case ".gpkg":
            write_geopackage(path, [layer])
        case ".csv":
            write_table(path, hits)
        case ".kmz":
            kept = [(hit, picture) for hit, picture in zip(hits, pictures, strict=True) if hit in located]
            write_kmz(path, kept, title)
    return len(hits) - len(located)


def properties(hit: Hit) -> dict[str, Value]:
    """Return what a map shows of a hit."""
    return {
        "flight": hit.flight_name,
        "frame": hit.frame,
        "tile": hit.tile,
        "utc": iso(hit.utc_ns) if hit.utc_ns else None,
        "score": round(hit.score, 4),
        "percentile": round(hit.percentile, 2),
        "background": None if hit.background is None else round(hit.background, 2),
        "error_m": None if hit.error_m is None else round(hit.error_m, 1),
        "height_m": hit.height_m,
        "label": hit.label,
        "name": hit.name,
        "finding": hit.number or None,
        "row": hit.row,
    }


def write_table(path: Path, hits: Sequence[Hit]) -> None:
    """Write every hit as a row of a CSV (RFC 4180), UTF-8, as ``overflight export`` does for a flight."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    columns = list(properties(hits[0])) if hits else []
    table.writerow(["layer", "lat", "lon", *columns, "wkt"])
    for hit in hits:
        place = ["", "", ""]
        if hit.lat_deg is not None and hit.lon_deg is not None:
            place = [f"{hit.lat_deg:.7f}", f"{hit.lon_deg:.7f}", point(hit.lon_deg, hit.lat_deg).wkt()]
        table.writerow(["hits", *place[:2], *map(safe_cell, properties(hit).values()), place[2]])
    write_atomically(path, text.getvalue().encode())


def write_kmz(path: Path, hits: Sequence[tuple[Hit, Picture]], title: str) -> None:
    """Write placemarks with their photos: KML 2.2 in a ZIP archive, as Google Earth and CalTopo open it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        places = [_placemark(number, hit, picture) for number, (hit, picture) in enumerate(hits, start=1)]
        archive.writestr(
            "doc.kml",
            '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
            f"<name>{xml_text(title)}</name>\n{''.join(places)}</Document></kml>\n",
        )
        for number, (_, picture) in enumerate(hits, start=1):
            if picture.jpeg:
                archive.writestr(f"files/{number}.jpg", picture.jpeg, zipfile.ZIP_STORED)
    write_atomically(path, buffer.getvalue())


def _placemark(number: int, hit: Hit, picture: Picture) -> str:
    photo = f'<img src="files/{number}.jpg" width="320"/><br/>' if picture.jpeg else ""
    facts = "<br/>".join(f"{key}: {xml_text(value)}" for key, value in properties(hit).items() if value is not None)
    stamp = f"<TimeStamp><when>{iso(hit.utc_ns)}</when></TimeStamp>" if hit.utc_ns else ""
    data = "".join(
        f'<Data name="{key}"><value>{xml_text(value)}</value></Data>'
        for key, value in properties(hit).items()
        if value is not None
    )
    return (
        f"<Placemark><name>{number}</name><description><![CDATA[{photo}{facts}]]></description>{stamp}"
        f"<ExtendedData>{data}</ExtendedData>"
        f"<Point><coordinates>{hit.lon_deg:.7f},{hit.lat_deg:.7f}</coordinates></Point></Placemark>\n"
    )
