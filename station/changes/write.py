"""Writing changes: a heat map, a page on which two dates are swiped, map files, a table."""

from __future__ import annotations

import base64
import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.geofiles.geojson import write_geojson
from overflight.runtime.geofiles.geometry import polygon
from overflight.runtime.geofiles.geopackage import write_geopackage
from overflight.runtime.geofiles.layers import Feature, Layer
from overflight.runtime.geofiles.style import Style
from overflight.runtime.geofiles.table import safe_cell
from overflight.runtime.sources.image import opencv
from overflight.station.changes.sentence import sentences
from overflight.station.page import page, tag
from overflight.station.words import label_name, say

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from overflight.runtime.geofiles.layers import Value
    from overflight.station.changes.compare import Compared
    from overflight.station.changes.record import Changes, TileChange
    from overflight.station.words import Language

FORMATS = (".json", ".html", ".png", ".gpkg", ".geojson", ".csv")
_COLD, _HOT = np.array([255.0, 237.0, 160.0]), np.array([177.0, 0.0, 38.0])


def heat_map(changes: Changes, compared: Compared) -> NDArray[np.uint8]:
    """Draw the scores over the later picture, RGB: tiles above the lower limit are coloured, changed ones outlined."""
    cv2 = opencv()
    shown = compared.views[1].astype(np.float32)
    scale = shown.shape[1] / compared.grid.width
    limits = changes.limits
    for tile, (top, left, bottom, right) in zip(changes.tiles, compared.boxes, strict=True):
        box = tuple(round(edge * scale) for edge in (top, left, bottom, right))
        strength = min(1.0, max(0.0, (tile.score - limits.low) / max(1e-9, 2 * (limits.high - limits.low))))
        if tile.score > limits.low:
            part = shown[box[0] : box[2], box[1] : box[3]]
            part[:] = 0.5 * part + 0.5 * (_COLD + strength * (_HOT - _COLD))
    drawn = np.ascontiguousarray(shown.round().astype(np.uint8))
    for tile, (top, left, bottom, right) in zip(changes.tiles, compared.boxes, strict=True):
        if tile.changed:
            corners = (round(left * scale), round(top * scale)), (round(right * scale) - 1, round(bottom * scale) - 1)
            cv2.rectangle(drawn, *corners, (120, 0, 30), 1)
    return drawn


def to_html(changes: Changes, compared: Compared, language: Language) -> bytes:
    """Write the page: both dates under a slider, the heat map, the sentences and a table of limits."""
    title = say("change title", language, before=_name(changes.before), after=_name(changes.after))
    pictures = [jpeg_text(one) for one in (*compared.views, heat_map(changes, compared))]
    names = [say(key, language) for key in ("before", "after", "heat")]
    swipe = tag(
        "div",
        [
            tag("img", src=f"data:image/jpeg;base64,{picture}", alt=name, class_=kind)
            for picture, name, kind in zip(pictures, names, ("before-date", "after-date", "heat-map"), strict=True)
        ],
        class_="swipe",
        id="swipe",
    )
    slider = tag(
        "input", type="range", min="0", max="1000", value="500", id="slider", aria_label=say("swipe", language)
    )
    check = tag("label", tag("input", type="checkbox", id="heat"), f" {say('heat', language)}")
    lead = " ".join(sentences(changes, language)) if language == "en" else "".join(sentences(changes, language))
    header = tag(
        "header", tag("p", say("changes", language), class_="kind"), tag("h1", title), tag("p", lead, class_="lead")
    )
    legend = tag("p", f"{names[0]} ◂ ▸ {names[1]}. {say('swipe', language)}", class_="note")
    body = tag("main", header, tag("section", swipe, slider, check, legend), facts(changes, language), lang=language)
    return page(title, [body], style="changes/swipe.css", script="changes/swipe.js", language=language)


def facts(changes: Changes, language: Language) -> Element:
    """Return the table of what the answer rests on."""
    limits, found = changes.limits, changes.registration
    shift = f"{found.right_px:+.1f}, {found.down_px:+.1f} px" if found.error_m is None else f"{found.error_m:.1f} m"
    rows = [
        (say("registration", language), f"{found.state}; {shift}"),
        (say("limit", language), f"{limits.high:.4f} / {limits.low:.4f}"),
        (say("background pairs", language), f"{limits.origin}, {limits.tiles} tiles, {limits.false_alarm:.0%}"),
        (say("before", language), f"{changes.before} {changes.hashes.before[:16]}"),
        (say("after", language), f"{changes.after} {changes.hashes.after[:16]}"),
        (say("model", language), f"{changes.model} {changes.hashes.model[:16]}"),
        (say("bank", language), f"{changes.bank} {changes.hashes.bank[:16]}"),
        *((say("notes", language), note) for note in changes.notes),
    ]
    listed = tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_="facts")
    return tag("section", tag("p", say("change honesty", language), class_="note"), listed)


def export_changes(changes: Changes, path: Path) -> None:
    """Write the tiles as a map (changed tiles) or as a table (all). Raises UsageError where there is no place."""
    match path.suffix.lower():
        case ".csv":
            _write_table(changes, path)
        case ".gpkg" | ".geojson":
            layer = changed_layer(changes)
            if not layer.features:
                why = "no tile changed" if any(tile.ring for tile in changes.tiles) else "no place on the map"
                raise UsageError(f"{path}: {why}; write a .csv")
            if path.suffix.lower() == ".gpkg":
                write_geopackage(path, [layer], {"changes": _style(changes)})
            else:
                write_geojson(path, [layer])
        case ending:
            raise UsageError(f"{path}: ends in {ending!r}; expected one of {', '.join(FORMATS)}")


def changed_layer(changes: Changes) -> Layer:
    """Return a feature for each changed tile that has a place."""
    tiles = [tile for tile in changes.tiles if tile.changed and tile.ring]
    return Layer("changes", [Feature(polygon(tile.ring), _properties(changes, tile)) for tile in tiles])


def _style(changes: Changes) -> Style:
    top = max(tile.score for tile in changes.tiles)
    edges = np.linspace(changes.limits.low, max(top, changes.limits.high) + 1e-6, 5)
    colours = ("#ffeda0", "#feb24c", "#f03b20", "#b10026")
    return Style("score", ranges=tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), colours, strict=True)))


def _write_table(changes: Changes, path: Path) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    rows = [_properties(changes, tile) for tile in changes.tiles]
    table.writerow(rows[0])
    table.writerows([safe_cell(value) for value in row.values()] for row in rows)
    write_atomically(path, text.getvalue().encode())


def _properties(changes: Changes, tile: TileChange) -> dict[str, Value]:
    return {
        "row": tile.row,
        "column": tile.column,
        "score": tile.score,
        "changed": tile.changed,
        "label_before": tile.before or "unknown",
        "label_after": tile.after or "unknown",
        "label_before_zh": label_name(tile.before, "zh"),
        "label_after_zh": label_name(tile.after, "zh"),
        "flip": tile.flip,
        "area_m2": tile.area_m2,
        "left_px": tile.left_px,
        "top_px": tile.top_px,
        "before": changes.before,
        "after": changes.after,
        "model": changes.hashes.model[:16],
        "bank": changes.hashes.bank[:16],
    }


def jpeg_text(pixels: NDArray[np.uint8]) -> str:
    """Encode RGB pixels as a JPEG in base64."""
    cv2 = opencv()
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return base64.b64encode(bytes(encoded)).decode()


def _name(path: str) -> str:
    return path.rpartition("/")[2]
