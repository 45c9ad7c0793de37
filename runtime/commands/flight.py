"""``overflight flight``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Export what a flight recorded.

    \b
    overflight flight export --format geojson,gpkg,kml,csv flights/first
    """


@command.command()
@click.argument("flight", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "formats",
    default="geojson",
    show_default=True,
    help="One or more of geojson, gpkg, kml and csv, separated by commas.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder for the files.  [default: FLIGHT]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(flight: Path, formats: str, out: Path | None, as_json: bool) -> None:
    """Write a flight's footprints, observations, track and events as map files.

    \b
    overflight flight export --format geojson,gpkg,kml,csv flights/first
    """
    import msgspec

    from overflight.runtime.geofiles import export_flight

    exported = export_flight(flight, [name.strip() for name in formats.split(",") if name.strip()], out)
    if as_json:
        click.echo(msgspec.json.encode(exported).decode())
        return
    for path in exported.files:
        click.echo(path)
    counts = ", ".join(f"{count} {layer}" for layer, count in exported.features.items())
    without = f"; {exported.without_position} observations have no position" if exported.without_position else ""
    click.echo(f"{counts}{without}")
