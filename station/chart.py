"""The report's drawings: a flight's timeline, and how its latencies are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.station.page import tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from overflight.station.summary import Axis, Summary

LATE = 0.6  # of the width: from here on a name stands left of its line, for it is a third of a phone wide
COLUMNS = 900  # as fine as a screen shows; what is more is folded, so that a day's flight makes the same page
BINS = 60
PERCENTILES = (50, 95, 99)
PALETTE = (
    "#6fb27a",
    "#e8a85c",
    "#6ba8dc",
    "#d9809f",
    "#a99be0",
    "#d8c24a",
    "#58b9b4",
    "#cf8a6b",
    "#8fa6c4",
    "#b3c763",
    "#c78fc9",
    "#7f9e8c",
)
UNKNOWN_COLOUR = "#9b9b9b"


@dataclass(frozen=True)
class Columns:
    """The timeline folded into at most COLUMNS pieces; each names the row that stands for it.

    A piece from ``starts`` to ``ends`` (0 to 1 of the flight) shows the answer that held the most of it: ``rows`` is
    that answer's surest observation in the piece. ``lost`` counts the frames lost in it.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    rows: NDArray[np.int64]
    lost: NDArray[np.int64]


def fold(summary: Summary) -> Columns:
    """Fold a flight's observations into columns; a short flight keeps every one of them."""
    span = extent(summary)
    starts = (summary.times - summary.times[0]) / span
    ends = starts + summary.weights / span
    if len(summary) <= COLUMNS:
        return Columns(starts, ends, np.arange(len(summary)), summary.lost_before)
    column = np.minimum((starts * COLUMNS).astype(int), COLUMNS - 1)
    edges = np.flatnonzero(np.diff(column, prepend=-1))
    rows = np.array(
        [_foremost(summary, first, last) for first, last in zip(edges, [*edges[1:], len(column)], strict=True)]
    )
    lost = np.add.reduceat(summary.lost_before, edges)
    return Columns(starts[edges], ends[[*(edges[1:] - 1), len(column) - 1]], rows, lost)


def _foremost(summary: Summary, first: int | np.int64, last: int | np.int64) -> int:
    held: dict[str | None, float] = {}
    rows = range(int(first), int(last))
    for row in rows:
        held[summary.answers[row]] = held.get(summary.answers[row], 0.0) + summary.weights[row]
    answer = max(held, key=lambda label: held[label])
    return max((row for row in rows if summary.answers[row] == answer), key=lambda row: summary.scores[row])


def extent(summary: Summary) -> float:
    """How long the flight is, on its axis."""
    return float(summary.times[-1] - summary.times[0] + summary.weights[-1])


def colours(summary: Summary) -> dict[str | None, str]:
    """Give each label its colour, the longest seen first; unknown is grey."""
    seen = [label.label for label in summary.labels if label.label is not None]
    return {None: UNKNOWN_COLOUR, **{label: PALETTE[place % len(PALETTE)] for place, label in enumerate(seen)}}


def timeline(summary: Summary, columns: Columns) -> Element:
    """Draw the bands of the answers and, above them, the curve of their scores, each in its label's colour."""
    colour = colours(summary)
    answers = [summary.answers[row] for row in columns.rows]
    runs = _runs(answers, columns)
    strip = [_band(summary, columns, run, colour[answers[run[0]]]) for run in runs]
    curve = [part for run in runs for part in _curve(summary, columns, run, colour[answers[run[0]]])]
    curve += [
        tag("line", x1=f"{1000 * start:.1f}", x2=f"{1000 * start:.1f}", y1=0, y2=100, class_="lost")
        for start, lost in zip(columns.starts, columns.lost, strict=True)
        if lost
    ]
    grid = [tag("line", x1=0, x2=1000, y1=y, y2=y, class_="grid") for y in (0, 50, 100)]
    drawing = tag(
        "svg", grid, curve, viewBox="0 0 1000 100", preserveAspectRatio="none", class_="curve", aria_hidden="true"
    )
    return tag(
        "div",
        tag("div", drawing, tag("i", "1", style="top:0"), tag("i", "0.5", style="top:50%"), class_="plot"),
        tag("div", strip, class_="strip"),
        tag("div", _ticks(summary), class_="ticks"),
        tag("div", class_="cursor", hidden="hidden"),
        tag("div", class_="head", hidden="hidden"),
        id="timeline",
    )


def _curve(summary: Summary, columns: Columns, run: tuple[int, int], colour: str) -> list[Element]:
    """Draw the scores of one band: a line, and the area below it."""
    first, last = run
    heights = 100 - 100 * np.clip(summary.scores[columns.rows[first : last + 1]], 0, 1)
    middles = 500 * (columns.starts[first : last + 1] + columns.ends[first : last + 1])
    left, right = 1000 * columns.starts[first], 1000 * columns.ends[last]
    points = [(left, heights[0]), *zip(middles, heights, strict=True), (right, heights[-1])]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{left:.1f},100 {line} {right:.1f},100"
    return [
        tag("polygon", points=area, fill=colour, class_="area"),
        tag("polyline", points=line, stroke=colour, class_="line"),
    ]


def _band(summary: Summary, columns: Columns, run: tuple[int, int], colour: str) -> Element:
    """Draw one band of the strip; its name is written where there is room, and shown on hover everywhere."""
    first, last = run
    left, width = columns.starts[first], columns.ends[last] - columns.starts[first]
    name = summary.answers[columns.rows[first]] or "unknown"
    return tag(
        "div",
        tag("span", name) if width > 0.045 else None,
        class_="band",
        style=f"left:{100 * left:.3f}%;width:{100 * width:.3f}%;background:{colour}",
        title=f"{name}, {moment(summary, columns.rows[first])} to {moment(summary, columns.rows[last])}",
    )


def histogram(values_ms: NDArray[np.float64]) -> Element:
    """Draw how often each age came, with its percentiles; the last bar holds all that was slower."""
    marks = np.percentile(values_ms, PERCENTILES)
    top = max(float(marks[-1]) * 1.2, float(values_ms.min()) + 1e-6)
    low = min(float(values_ms.min()) * 0.9, top)
    counts, _ = np.histogram(np.clip(values_ms, low, top), bins=BINS, range=(low, top))
    step = 1000 / BINS
    bars = [
        tag(
            "rect",
            x=f"{place * step + 1:.2f}",
            y=f"{100 - 100 * height:.2f}",
            width=f"{step - 2:.2f}",
            height=f"{100 * height:.2f}",
        )
        for place, height in enumerate(counts / counts.max())
        if height
    ]
    lines = [
        _mark(f"p{which}", (mark - low) / (top - low), mark, place)
        for place, (which, mark) in enumerate(zip(PERCENTILES, marks, strict=True))
    ]
    drawing = tag("svg", bars, viewBox="0 0 1000 100", preserveAspectRatio="none", class_="bars", aria_hidden="true")
    ticks = [_tick(place, f"{three_digits(low + (top - low) * place)} ms") for place in (0.0, 0.25, 0.5, 0.75)]
    return tag("div", tag("div", drawing, lines, class_="plot"), tag("div", ticks, class_="ticks"), class_="histogram")


def moment(summary: Summary, row: int | np.int64) -> str:
    """Say when an observation was: the place in the recording, the time since the start, or the picture."""
    if summary.axis == "pictures":
        return summary.names[row] or f"frame {summary.frames[row]}"
    return clock(float(summary.times[row]))


def three_digits(value: float) -> str:
    """Write a number with three significant digits, and a large one whole: 0.0123, 4.56, 3100."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Write seconds as people read them: 0:07.4, 12:31, 1:02:45."""
    if round(seconds, 1) < 60:
        return f"0:{seconds:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def lasting(axis: Axis, weight: float) -> str:
    """Write how long something lasted, in the axis' unit."""
    if axis == "pictures":
        return f"{weight:.0f}"
    return f"{weight:.1f} s" if weight < 60 else clock(weight)


def _runs(answers: list[str | None], columns: Columns) -> list[tuple[int, int]]:
    """First and last column of each unbroken band; a gap where nothing was seen breaks it too."""
    gap = 1e-6 + 0.25 / COLUMNS
    breaks = [
        place
        for place in range(1, len(answers))
        if answers[place] != answers[place - 1] or columns.starts[place] > columns.ends[place - 1] + gap
    ]
    return list(zip([0, *breaks], [*(place - 1 for place in breaks), len(answers) - 1], strict=True))


def _ticks(summary: Summary) -> list[Element]:
    span = extent(summary)
    step = _round_step(span / 8, whole=summary.axis == "pictures")
    first = np.ceil(summary.times[0] / step) * step
    write: Callable[[float], str] = (
        (lambda at: f"{at:.0f}") if summary.axis == "pictures" else (lambda at: clock(at).removesuffix(".0"))
    )
    return [
        _tick((at - summary.times[0]) / span, write(at))
        for at in np.arange(first, summary.times[0] + 0.97 * span, step)
    ]


def _round_step(least: float, *, whole: bool) -> float:
    """The next step up that people count in."""
    steps = [1, 2, 5, 10, 20, 50] if whole else [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]
    step = next((step for step in steps if step >= least), None)
    return float(step or 10 ** np.ceil(np.log10(least)))


def _tick(place: float, text: str) -> Element:
    return tag("span", text, style=f"left:{100 * place:.2f}%")


def _mark(name: str, place: float, value_ms: float, level: int) -> Element:
    return tag(
        "b",
        tag("span", f"{name} {three_digits(value_ms)} ms", style=f"top:{1.35 * level}em"),
        class_="mark late" if place > LATE else "mark",
        style=f"left:{100 * place:.2f}%",
    )
