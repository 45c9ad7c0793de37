"""Plots: latency distributions, growth of the cost, and the engines under the roofline."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.spread import Spread
from overflight.bench.table import name_of
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import MissingError, UsageError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from overflight.bench.row import Row

# What makes a curve: the measure, the setting that grows, and the words of its axis.
CURVES = {
    "labels": ("match", "labels", "labels in the bank"),
    "batch": ("batches", "batch", "frames in a batch"),
    "side": ("tiles", "side", "side of the picture in pixels"),
    "count": ("search", "count", "embeddings"),
    "archive": ("archive", "count", "embeddings in the archive"),
}


def plots(rows: Sequence[Row]) -> dict[str, Callable[[], bytes]]:
    """Return what can be drawn from these rows, by name; each call draws one SVG."""
    found: dict[str, Callable[[], bytes]] = {}
    for run in dict.fromkeys(row.run for row in rows if row.measure in ("engine", "classify")):
        able = [row for row in rows if row.run == run and row.samples]
        if len(able) > 1:
            found[f"latency-{able[0].model}-{able[0].measure}"] = lambda able=able: latency(able)  # type: ignore[misc]
        if any(row.floor for row in able):
            found[f"roofline-{able[0].model}"] = lambda able=able: roofline(able)  # type: ignore[misc]
    for name, (measure, setting, _) in CURVES.items():
        grown = [row for row in rows if row.measure == measure and setting in row.settings and row.samples]
        if len({row.settings[setting] for row in grown}) > 2:
            found[f"growth-{name}"] = lambda name=name, grown=grown: growth(name, grown)  # type: ignore[misc]
    for run in dict.fromkeys(row.run for row in rows if row.measure in ("sustained", "memory") and row.samples):
        row = next(row for row in rows if row.run == run and row.subject in ("engine", "overflight run"))
        found[f"time-{row.measure}-{row.model}"] = lambda row=row: over_time(row)  # type: ignore[misc]
    return found


def save(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw all that can be drawn into a folder. Raises UsageError where that is nothing."""
    drawn = plots(rows)
    if not drawn:
        raise UsageError("nothing to draw: expected a run of two subjects or more, or one that grows; see bench engine")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in drawn.items():
        paths.append(folder / f"{name}.svg")
        write_atomically(paths[-1], draw())
    return paths


def latency(rows: Sequence[Row]) -> bytes:
    """Draw each subject's share of samples below a latency."""
    figure, axes = _figure("latency in ms", "share of samples at most so long")
    for row in sorted(rows, key=lambda row: Spread.of(row.samples).p50):
        values = np.sort(np.asarray(row.samples)) / 1e6
        axes.step(values, (np.arange(len(values)) + 1) / len(values), label=name_of(row.subject), where="post")
    axes.set_xscale("log")
    axes.set_title(f"{rows[0].model}, {rows[0].measure}, one run in turns, load {rows[0].host.load:g}")
    return _svg(_with_names(figure))


def growth(name: str, rows: Sequence[Row]) -> bytes:
    """Draw the median cost against what grows, with the slope of each curve's last step."""
    _, setting, words = CURVES[name]
    figure, axes = _figure(words, "ms (median, 5 to 95 %)")
    for subject in dict.fromkeys((row.subject, row.model) for row in rows):
        mine = {float(row.settings[setting]): row for row in rows if (row.subject, row.model) == subject}
        places = sorted(mine)
        values = [np.percentile(mine[place].samples, [5, 50, 95]) / 1e6 for place in places]
        low, middle, high = np.asarray(values).T
        axes.plot(places, middle, marker="o", label=f"{name_of(subject[0])} {subject[1]}".strip())
        axes.fill_between(places, low, high, alpha=0.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"cost as the {setting} grows, load {rows[0].host.load:g}")
    axes.legend(fontsize=8)
    return _svg(figure)


def exponent(rows: Sequence[Row], setting: str) -> float:
    """How cost grows at the upper end: 1 is proportional, 0 not at all (slope between the two largest, in logs)."""
    ordered = sorted((row for row in rows if row.samples), key=lambda row: float(row.settings[setting]))[-2:]
    if len(ordered) < 2:
        raise UsageError(f"one size of {setting} makes no curve; measure two at least")
    places = [float(row.settings[setting]) for row in ordered]
    values = [Spread.of(row.samples).p50 for row in ordered]
    return float(np.log(values[1] / values[0]) / np.log(places[1] / places[0]))


def roofline(rows: Sequence[Row]) -> bytes:
    """Draw the measured roofs and where each engine stands under them."""
    figure, axes = _figure("operations per byte of weights and frames", "operations per second")
    intensity = np.logspace(-1, 4, 60)
    for row in rows:
        floor = row.floor
        if floor is None:
            continue
        done, median = sum(floor.operations.values()), Spread.of(row.samples).p50 / 1e9
        name = f"{name_of(row.subject)} ({floor.share:.0%} of its floor)"
        (point,) = axes.plot(done / floor.bytes, done / median, "o", label=name)
        for kind, peak in floor.per_s.items():
            if kind != "bytes":
                roof = np.minimum(intensity * floor.per_s["bytes"], peak)
                axes.plot(intensity, roof, lw=0.8, color=point.get_color())
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{rows[0].model} under the fp32 and int8 roofs")
    return _svg(_with_names(figure))


def over_time(row: Row) -> bytes:
    """Draw every sample in its order."""
    scale, unit = (1e6, "MB") if row.unit == "bytes" else (1e6, "ms")
    figure, axes = _figure("sample", unit)
    axes.plot(np.asarray(row.samples) / scale, ".", markersize=2)
    axes.set_title(f"{row.measure}, {row.model}")
    return _svg(figure)


def _figure(x: str, y: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "bench") from error
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="both", alpha=0.25)
    return figure, axes


def _with_names(figure: Any) -> Any:
    """Put the names next to the plot, where they hide nothing."""
    figure.set_figwidth(9.5)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _svg(figure: Any) -> bytes:
    """Write without the moment and with fixed names inside: the same rows make the same file."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "overflight", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    if not buffer.getbuffer().nbytes:
        raise MissingError("matplotlib drew nothing; install it again: pip install 'overflight[bench]'")
    return buffer.getvalue()
