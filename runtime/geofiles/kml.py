"""KML 2.2 for Google Earth and for responders' phones: a folder per layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from overflight.runtime.durable import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.geofiles.geometry import Geometry, Point
    from overflight.runtime.geofiles.layers import Feature, Layer, Value

_STYLE = (
    '<Style id="footprints"><LineStyle><color>ff00aaff</color></LineStyle>'
    "<PolyStyle><color>2000aaff</color></PolyStyle></Style>"
    '<Style id="track"><LineStyle><color>ffffffff</color><width>2</width></LineStyle></Style>'
    '<Style id="observations"><IconStyle><scale>0.5</scale></IconStyle></Style>'
    '<Style id="events"><IconStyle><color>ff0000ff</color></IconStyle></Style>'
)
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_kml(path: Path, layers: list[Layer]) -> None:
    """Write the layers, clamped to the ground."""
    folders = "\n".join(
        f"<Folder><name>{layer.name}</name>\n"
        + "\n".join(_placemark(layer, feature) for feature in layer.features)
        + "\n</Folder>"
        for layer in layers
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
        f"<name>{xml_text(path.stem)}</name>{_STYLE}\n{folders}\n</Document></kml>\n"
    )
    write_atomically(path, text.encode())


def _placemark(layer: Layer, feature: Feature) -> str:
    properties = feature.properties
    name = properties.get("label") or ("track" if layer.name == "track" else "unknown")
    when = properties.get("utc")
    stamp = f"<TimeStamp><when>{xml_text(when)}</when></TimeStamp>" if when else ""
    data = "".join(
        f'<Data name="{key}"><value>{xml_text(value)}</value></Data>'
        for key, value in properties.items()
        if value is not None
    )
    return (
        f"<Placemark><name>{xml_text(name)}</name>{stamp}<styleUrl>#{layer.name}</styleUrl>"
        f"<ExtendedData>{data}</ExtendedData>{_geometry(feature.geometry)}</Placemark>"
    )


def _geometry(geometry: Geometry) -> str:
    match geometry.kind:
        case "Point":
            parts = [f"<Point>{_coordinates(part)}</Point>" for part in geometry.parts]
        case "LineString" | "MultiLineString":
            parts = [f"<LineString><tessellate>1</tessellate>{_coordinates(p)}</LineString>" for p in geometry.parts]
        case "Polygon" | "MultiPolygon":
            parts = [
                f"<Polygon><outerBoundaryIs><LinearRing>{_coordinates(part)}</LinearRing></outerBoundaryIs></Polygon>"
                for part in geometry.parts
            ]
    return parts[0] if len(parts) == 1 else f"<MultiGeometry>{''.join(parts)}</MultiGeometry>"


def _coordinates(points: tuple[Point, ...]) -> str:
    return f"<coordinates>{' '.join(f'{lon:.7f},{lat:.7f}' for lon, lat in points)}</coordinates>"


def xml_text(value: Value) -> str:
    """Escape a value; characters that XML does not allow become U+FFFD."""
    return escape(_NOT_XML.sub("\ufffd", str(value)))
