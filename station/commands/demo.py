"""``overflight demo``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from overflight.station.demonstrate import Demonstration
    from overflight.station.summary import Summary

_SHORTEST_S = 1.0  # of a part of the film that is named


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-flight"), show_default=True)
@click.option("--replace", is_flag=True, help="Replace the flight in --out, if there is one.")
@click.option("--open", "open_page", is_flag=True, help="Open the report in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths and figures as JSON.")
def command(out: Path, replace: bool, open_page: bool, as_json: bool) -> None:
    """Run on a short film that comes with the package, and write its report.

    \b
    overflight demo --open
    """
    import msgspec

    from overflight.station.demonstrate import demonstrate, load

    with load() as overflight:
        left = demonstrate(overflight, out, replace=replace, silent=as_json)
    click.echo(msgspec.json.encode(_figures(out, left)) if as_json else _in_words(left))
    if left.answers and not as_json:
        click.echo(f"page   overflight serve {out}/archive --flights {out}")
    if open_page:
        click.launch(left.report.resolve().as_uri())


def _figures(out: Path, left: Demonstration) -> dict[str, object]:
    return {
        "flight": str(out),
        "video": str(left.video),
        "report": str(left.report),
        "observations": len(left.summary),
        "frames_per_s": left.summary.frames_per_s,
        "median_age_ms": left.summary.median_age_ms,
        "searches": {one.sentence: one.answer for one in left.answers},
        "shares": {label.label or "unknown": round(label.share, 4) for label in left.summary.labels},
    }


def _when_unknown(summary: Summary) -> str:
    """Say in which parts of the film, of a second or more, no label was near enough; "" where there is none."""
    parts, start = [], 0
    for answer, run in groupby(summary.answers):
        rows = range(start, start := start + len(list(run)))
        if answer is None and float(summary.weights[rows].sum()) >= _SHORTEST_S:
            first = float(summary.times[rows[0]])
            parts.append(f"{first:.1f} to {first + float(summary.weights[rows].sum()):.1f} s")
    return f"unknown: {', '.join(parts)}, where no label was near enough\n" if parts else ""


def _in_words(left: Demonstration) -> str:
    summary = left.summary
    seen = ", ".join(f"{label.label or 'unknown'} {label.share:.0%}" for label in summary.labels[:4])
    return (
        f"{len(summary)} frames observed, {summary.frames_per_s or 0:.1f} a second\n"
        f"median age of a decision {summary.median_age_ms:.3g} ms\n"
        f"seen: {seen}\n"
        f"{_when_unknown(summary)}"
        f"report {left.report}\n"
        f"video  {left.video}"
        + "".join(
            f"\nsearch {one.sentence!r}: {one.answer}" + "".join(f"\n       {path}" for path in one.files)
            for one in left.answers
        )
    )
