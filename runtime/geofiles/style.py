"""A layer's style for QGIS: rules by value or by number, as the layer_styles table of a GeoPackage keeps it.

QGIS applies the row whose ``useAsDefault`` is true when the layer is opened; GDAL and other readers ignore the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring  # only ever written, never parsed

Stop = tuple[float, float, str]


@dataclass(frozen=True)
class Style:
    """How a layer is drawn: by the values of ``column``, or by ranges (low, high, colour) of its numbers.

    ``values`` maps a value to (name for people, colour ``#rrggbb``). ``opacity`` is of the fill.
    """

    column: str
    values: dict[str, tuple[str, str]] | None = None
    ranges: tuple[Stop, ...] = ()
    opacity: float = 0.5


def qml(style: Style) -> str:
    """Write the style in QGIS's own format (QML) for polygons."""
    root = Element("qgis", version="3.28.0", styleCategories="Symbology")
    kind = "categorizedSymbol" if style.values is not None else "graduatedSymbol"
    renderer = SubElement(root, "renderer-v2", type=kind, attr=style.column, enableorderby="0", forceraster="0")
    if style.values is not None:
        group = SubElement(renderer, "categories")
        for number, (value, (name, _)) in enumerate(style.values.items()):
            SubElement(group, "category", value=value, symbol=str(number), label=name, render="true", type="string")
        colours = [colour for _, colour in style.values.values()]
    else:
        renderer.set("graduatedMethod", "GraduatedColor")
        group = SubElement(renderer, "ranges")
        for number, (low, high, _) in enumerate(style.ranges):
            SubElement(group, "range", lower=f"{low:.6f}", upper=f"{high:.6f}", symbol=str(number),
                       label=f"{low:.3g} - {high:.3g}", render="true")  # fmt: skip
        colours = [colour for *_, colour in style.ranges]
    symbols = SubElement(renderer, "symbols")
    for number, colour in enumerate(colours):
        _symbol(symbols, str(number), colour, style.opacity)
    text = tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"


def _symbol(parent: Element, name: str, colour: str, opacity: float) -> None:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    symbol = SubElement(parent, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = SubElement(layer, "Option", type="Map")
    for key, value in {
        "color": f"{red},{green},{blue},{round(255 * opacity)}",
        "style": "solid",
        "outline_color": "60,60,60,120",
        "outline_style": "solid",
        "outline_width": "0.1",
        "outline_width_unit": "MM",
    }.items():
        SubElement(options, "Option", type="QString", name=key, value=value)
