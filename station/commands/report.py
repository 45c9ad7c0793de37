"""``overflight report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("flight", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page.  [default: FLIGHT/report.html]")
@click.option("--json", "as_json", is_flag=True, help="Print the path and figures as JSON.")
def command(flight: Path, out: Path | None, as_json: bool) -> None:
    """Write the report of a flight: one self-contained page.

    \b
    overflight report flights/first
    overflight report flights/first -o first.html
    """
    import msgspec

    from overflight.station.report import REPORT, write_report

    summary = write_report(flight, out)
    page = out or flight / REPORT
    if as_json:
        shares = {label.label or "unknown": round(label.share, 4) for label in summary.labels}
        written = {"report": str(page), "bytes": page.stat().st_size, "observations": len(summary), "shares": shares}
        click.echo(msgspec.json.encode(written))
    else:
        click.echo(f"{page}: {len(summary)} observations, {page.stat().st_size / 1000:.0f} kB")
