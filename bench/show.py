"""Output of rows: a table for people, JSON lines for programs, and a progress bar."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from overflight.bench.compare import ratios
from overflight.bench.row import append
from overflight.bench.spread import Spread, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.bench.row import Row
    from overflight.bench.sample import Report

# Figures of a row that are shown with its samples, with their divisor and unit.
_SHOWN = {
    "first_ns": ("first", 1e6, "ms"),
    "load_ns": ("load", 1e6, "ms"),
    "read_ns": ("reading", 1e6, "ms"),
    "peak_bytes": ("peak", 1e6, "MB"),
    "steady_bytes": ("steady", 1e6, "MB"),
    "growth_per_1000_frames": ("growth per 1000 frames", 1e6, "MB"),
    "cosine_mean": ("cosine", 1, ""),
    "per_second": ("frames/s", 1, ""),
    "joules_per_frame": ("energy", 1, "J/frame"),
}


def show(rows: Sequence[Row], *, as_json: bool, out: Path | None) -> None:
    """Print rows, and keep them where ``out`` says."""
    if out is not None:
        append(out, rows)
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
        return
    from rich.console import Console
    from rich.table import Table

    able = [row for row in rows if row.samples]
    sound = [row for row in able if not row.starved]
    over = ratios(sound) if len(sound) > 1 and len({len(row.samples) for row in sound}) == 1 else {}
    table = Table(
        "subject", "p50", "p90", "p95", "p99", "p99.9", f"over {sound[0].title}" if over else "", "of the floor", "also"
    )
    for row in able:
        spread, unit = Spread.of(row.samples), "MB" if row.unit == "bytes" else "ms"
        values = (spread.p50, spread.p90, spread.p95, spread.p99, spread.p999)
        share = str(row.floor or "")
        relative = str(over[row.title][1]) if row.title in over else ""
        table.add_row(row.title, *(f"{say(value / 1e6)} {unit}" for value in values), relative, share, _also(row))
    console = Console()
    if not console.is_terminal:  # a log has no edge to wrap at
        console = Console(width=160)
    console.print(table)
    for row in rows:
        if not row.samples:
            console.print(f"{row.subject} could not run: {row.reason}", markup=False, highlight=False)
    host = rows[0].host
    machine = f"{host.kind}, {host.processor}; load {host.load:g} on {host.cores} cores; {rows[0].included}"
    console.print(machine, markup=False, highlight=False)


def _also(row: Row) -> str:
    parts = [row.starved] if row.starved else []
    parts += [
        f"{name} {row.figures[key] / scale:.4g} {unit}".strip()
        for key, (name, scale, unit) in _SHOWN.items()
        if key in row.figures
    ]
    parts += [f"{key} {value:g}" for key, value in row.figures.items() if key.startswith("dropped")]
    parts += [f"{key}: {row.settings[key]}" for key in ("meter", "throttled") if key in row.settings]
    return ", ".join(parts)


@contextmanager
def progress(*, silent: bool) -> Iterator[Report]:
    """Yield a function that receives the progress: a stage and its share (0 to 1)."""
    if silent:
        yield lambda stage, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=min(1.0, share))
