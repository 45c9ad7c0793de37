"""The drawings of a time series as inline SVG: a curve for each label, and a bar for each interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.station.chart import PALETTE, UNKNOWN_COLOUR
from overflight.station.page import tag
from overflight.station.series.dates import read_date
from overflight.station.series.follow import UNKNOWN

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from overflight.station.series.record import Curve, Series

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 10, 24
_DRAWN = 8  # curves: more look alike; the table has all


def curve_colours(series: Series) -> dict[str, str]:
    """Give each label its colour, the commonest first; unknown is grey."""
    named = [curve.label for curve in series.curves if curve.label != UNKNOWN]
    return {UNKNOWN: UNKNOWN_COLOUR} | {label: PALETTE[place % len(PALETTE)] for place, label in enumerate(named)}


def plot(series: Series) -> Element:
    """Draw the share of tiles of each label over time, with its interval at each date."""
    x = positions(series)
    named = [curve for curve in series.curves if curve.label != UNKNOWN][:_DRAWN]
    unknown = [curve for curve in series.curves if curve.label == UNKNOWN]
    colours = curve_colours(series)
    drawn = [part for curve in (*unknown, *named) for part in _curve(curve, x, colours[curve.label])]
    return tag("svg", _axes(x), drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="plot")


def bars(series: Series) -> Element:
    """Draw the share of changed tiles between dates that follow each other; what chance explains is pale."""
    x = positions(series)
    drawn = []
    for one in series.intervals:
        left, right, top = x[one.before] + 1, x[one.after] - 1, _y(one.share)
        box = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{max(1.0, right - left):.1f}"}
        drawn.append(tag("rect", class_="evident" if one.evident else "chance", height=f"{_y(0) - top:.1f}", **box))
        drawn.append(_whisker((left + right) / 2, one.low, one.high))
    return tag("svg", _axes(x), drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="plot")


def positions(series: Series) -> list[float]:
    """Return where each date lies across the drawing, in proportion to time."""
    times = [read_date(date.date).begin_utc_ns for date in series.dates]
    span = max(1, times[-1] - times[0])
    return [_LEFT + 12 + (WIDTH - _LEFT - _RIGHT - 24) * (time - times[0]) / span for time in times]


def _y(share: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _axes(x: list[float]) -> list[Element]:
    lines = [
        part
        for share in (0.0, 0.5, 1.0)
        for part in (
            tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=f"{_y(share):.1f}", y2=f"{_y(share):.1f}", class_="grid"),
            tag("text", f"{share:.0%}", x=_LEFT - 6, y=f"{_y(share) + 4:.1f}", text_anchor="end"),
        )
    ]
    ticks, last = [], -20.0
    for number, at in enumerate(x, start=1):
        ticks.append(
            tag("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=f"{_y(0):.1f}", y2=f"{_y(0) + 4:.1f}", class_="grid")
        )
        if at - last >= 18:  # the numbers of dates that lie close together would overlap
            ticks.append(tag("text", str(number), x=f"{at:.1f}", y=HEIGHT - 6, text_anchor="middle"))
            last = at
    return [*lines, *ticks]


def _curve(curve: Curve, x: list[float], colour: str) -> list[Element]:
    shown = [(at, point) for at, point in zip(x, curve.points, strict=True) if point.shown]
    line = " ".join(f"{at:.1f},{_y(point.share):.1f}" for at, point in shown)
    dots = [tag("circle", cx=f"{at:.1f}", cy=f"{_y(point.share):.1f}", r=3, fill=colour) for at, point in shown]
    whiskers = [_whisker(at, point.low, point.high, colour) for at, point in shown]
    return [*whiskers, tag("polyline", points=line, stroke=colour, fill="none", class_="line"), *dots]


def _whisker(at: float, low: float, high: float, colour: str | None = None) -> Element:
    return tag(
        "line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=f"{_y(low):.1f}", y2=f"{_y(high):.1f}", stroke=colour, class_="range"
    )
