"""Writing a time series: a page with curves, a table of tiles by date, a map of when each tile changed."""

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
from overflight.station.changes.write import jpeg_text
from overflight.station.chart import PALETTE
from overflight.station.page import page, tag
from overflight.station.series.chart import bars, curve_colours, plot
from overflight.station.series.follow import UNKNOWN
from overflight.station.words import label_name, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from overflight.runtime.geofiles.layers import Value
    from overflight.station.series.record import Curve, Interval, Series, TileSeries
    from overflight.station.series.series import Result
    from overflight.station.words import Language

FORMATS = (".json", ".html", ".csv", ".gpkg", ".geojson")


def sentences(series: Series, language: Language) -> list[str]:
    """Return when the ground changed, as sentences from templates; "cannot tell" where no interval is evident."""
    evident = [one for one in series.intervals if one.evident]
    found = [_interval_text(series, one, language) for one in evident]
    if not evident:
        found.append(say("changed never" if _compared(series) else "changed not known", language))
    counts = {state: sum(tile.state == state for tile in series.tiles) for state in ("lasting", "returned", "newest")}
    if any(counts.values()):
        found.append(say("series states", language, **counts))
    gradual = sum(tile.state == "gradual" for tile in series.tiles)
    if gradual:
        found.append(say("series gradual", language, count=gradual))
    unsure = sum(date.registration.state == "unverified" for date in series.dates)
    if unsure:
        found.append(say("series unverified", language, count=unsure, dates=len(series.dates)))
    return found


def to_html(result: Result, language: Language) -> bytes:
    """Write the page: sentences, pictures of the dates, curves, intervals, labels, and what the answer rests on."""
    series = result.series
    title = say("series title", language, first=series.dates[0].date, last=series.dates[-1].date)
    joined = " ".join(sentences(series, language)) if language == "en" else "".join(sentences(series, language))
    header = tag(
        "header", tag("p", say("series", language), class_="kind"), tag("h1", title), tag("p", joined, class_="lead")
    )
    intervals = [
        [
            f"{series.dates[one.before].date} - {series.dates[one.after].date}",
            f"{one.changed} / {one.compared}",
            f"{one.share:.0%}",
            f"{one.low:.0%} - {one.high:.0%}",
            say("yes" if one.evident else "not evident", language),
        ]
        for one in series.intervals
    ]
    interval_heads = [say(key, language) for key in ("interval of dates", "tiles", "share", "interval", "changed")]
    label_heads = [say(key, language) for key in ("label", "first seen", "last seen")]
    body = tag(
        "main",
        header,
        _pictures(result, language),
        tag("section", tag("h2", say("intervals", language)), bars(series), _table(interval_heads, intervals)),
        tag("section", tag("h2", say("curves", language)), plot(series), _legend(series, language)),
        tag("section", _table(label_heads, [_seen_cells(series, curve, language) for curve in series.curves])),
        _facts(series, language),
        lang=language,
    )
    return page(title, [body], style="series/series.css", script=None, language=language)


def export_series(series: Series, path: Path) -> None:
    """Write the table (a row for each tile and date) or the map (tiles that changed). Raises UsageError."""
    match path.suffix.lower():
        case ".csv":
            _write_table(series, path)
        case ".gpkg" | ".geojson":
            tiles = [tile for tile in series.tiles if tile.changed_to is not None and tile.ring]
            if not tiles:
                why = "no tile changed" if any(tile.ring for tile in series.tiles) else "no place on the map"
                raise UsageError(f"{path}: {why}; write a .csv")
            layer = Layer("changes", [Feature(polygon(tile.ring), _properties(series, tile)) for tile in tiles])
            if path.suffix.lower() == ".gpkg":
                write_geopackage(path, [layer], {"changes": _style(series)})
            else:
                write_geojson(path, [layer])
        case ending:
            raise UsageError(f"{path}: ends in {ending!r}; expected one of {', '.join(FORMATS)}")


def _compared(series: Series) -> bool:
    return any(one.compared for one in series.intervals)


def _interval_text(series: Series, one: Interval, language: Language) -> str:
    return say(
        "changed when",
        language,
        before=series.dates[one.before].date,
        after=series.dates[one.after].date,
        changed=one.changed,
        compared=one.compared,
        share=f"{100 * one.share:.0f}",
    )


def _pictures(result: Result, language: Language) -> Element | None:
    views = [view for view in result.views if view is not None]
    if len(views) != len(result.series.dates):
        return None
    figures = [
        tag(
            "figure",
            tag("img", src=f"data:image/jpeg;base64,{jpeg_text(view)}", alt=date.date),
            tag("figcaption", f"{number}. {date.date}"),
        )
        for number, (view, date) in enumerate(zip(views, result.series.dates, strict=True), start=1)
    ]
    return tag("section", tag("div", figures, class_="dates"), tag("p", say("series honesty", language), class_="note"))


def _legend(series: Series, language: Language) -> Element:
    colours = curve_colours(series)
    return tag(
        "p",
        [
            tag(
                "span",
                tag("svg", tag("rect", width=10, height=10, fill=colours[curve.label]), width=10, height=10),
                f" {label_name(None if curve.label == UNKNOWN else curve.label, language)}",
            )
            for curve in series.curves
        ],
        class_="legend",
    )


def _seen_cells(series: Series, curve: Curve, language: Language) -> list[str]:
    name = label_name(None if curve.label == UNKNOWN else curve.label, language)
    if curve.first_seen is None or curve.last_seen is None:
        return [name, "-", "-"]
    first, last = series.dates[curve.first_seen].date, series.dates[curve.last_seen].date
    earlier = "" if curve.first_seen else f" ({say('or earlier', language)})"
    later = "" if curve.last_seen < len(series.dates) - 1 else f" ({say('or later', language)})"
    return [name, first + earlier, last + later]


def _facts(series: Series, language: Language) -> Element:
    limits = series.limits
    rows = [
        (say("limit", language), f"{limits.high:.4f} / {limits.low:.4f}"),
        (say("background pairs", language), f"{limits.origin}, {limits.tiles} tiles, {limits.false_alarm:.0%}"),
        (say("model", language), f"{series.model} {series.model_sha256[:16]}"),
        (say("bank", language), f"{series.bank} {series.bank_sha256[:16]}"),
        *((say("notes", language), note) for note in series.notes),
    ]
    heads = [say(key, language) for key in ("date", "source", "hash", "registration", "tiles not shown")]
    dates = [
        [
            f"{number}. {one.date} ({say(f'date from {one.origin}', language)})",
            one.source.rpartition("/")[2],
            one.sha256[:16],
            _registration_text(one.registration.state, one.registration.shift_px, one.registration.error_m),
            str(one.missing_tiles),
        ]
        for number, one in enumerate(series.dates, start=1)
    ]
    listed = tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_="facts")
    return tag("section", tag("h2", say("notes", language)), _table(heads, dates), listed)


def _registration_text(state: str, shift_px: float, error_m: float | None) -> str:
    return f"{state}, {shift_px:.1f} px" if error_m is None else f"{state}, {error_m:.1f} m"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Element:
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in heads]))
    lines = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    return tag("div", tag("table", head, tag("tbody", lines)), class_="wide")


def _style(series: Series) -> Style:
    dates = {tile.changed_to for tile in series.tiles if tile.changed_to is not None}
    named = {
        series.dates[date].date: (series.dates[date].date, PALETTE[number % len(PALETTE)])
        for number, date in enumerate(sorted(dates))
    }
    return Style("changed_to", values=named)


def _properties(series: Series, tile: TileSeries) -> dict[str, Value]:
    def date(place: int | None) -> str | None:
        return None if place is None else series.dates[place].date

    known = [label for label in tile.labels if label is not None]
    return {
        "row": tile.row,
        "column": tile.column,
        "state": tile.state,
        "changed_from": date(tile.changed_from),
        "changed_to": date(tile.changed_to),
        "label_first": known[0] if known else None,
        "label_last": known[-1] if known else None,
        "area_m2": tile.area_m2,
        "left_px": tile.left_px,
        "top_px": tile.top_px,
        "model": series.model_sha256[:16],
        "bank": series.bank_sha256[:16],
    }


def _write_table(series: Series, path: Path) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    own = ["row", "column", "state", "changed_from", "changed_to", "area_m2", "left_px", "top_px", "model", "bank"]
    table.writerow([*own, "date", "label", "label_zh", "score", "source", "source_sha256"])
    for tile in series.tiles:
        properties = _properties(series, tile)
        for date, label, score in zip(series.dates, tile.labels, tile.scores, strict=True):
            name = "" if label is None else label_name(None if label == UNKNOWN else label, "zh")
            cells = [*(properties[key] for key in own), date.date, label, name, score, date.source, date.sha256[:16]]
            table.writerow([safe_cell(cell) for cell in cells])
    write_atomically(path, text.getvalue().encode())
