"""``overflight coverage``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from overflight.runtime.finite import Finite

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("flights", type=_PATH, nargs=-1, required=True)
@click.option("--area", type=_PATH, help="The searched area: a GeoJSON file with one polygon.")
@click.option("--cell", "cell_m", type=Finite(0.01), help="Side of the cells of the map in metres.")
@click.option("--out", type=_PATH, help="Write the coverage as .gpkg, .geojson or .kml.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    flights: tuple[Path, ...], area: Path | None, cell_m: float | None, out: Path | None, as_json: bool
) -> None:
    """Show which ground the flights covered, how often and how finely, and the gaps.

    FLIGHTS are flight directories, or an archive for all of its flights. Coverage is not a probability of detection.

    \b
    overflight coverage flights/first flights/second --area search.geojson --out coverage.gpkg
    """
    import msgspec

    from overflight.runtime.geofiles.export import FORMATS
    from overflight.station.archive import Archive
    from overflight.station.coverage import cover, read_area
    from overflight.station.output import check_outputs

    check_outputs([out], [f".{name}" for name in FORMATS])
    directories: list[Path] = []
    for path in flights:
        archive = Archive(path)
        kept = archive.flights() if archive.index.is_file() else []
        directories += [archive.flight_directory(flight.id) for flight in kept] or [path]
    coverage = cover(directories, area=read_area(area) if area else None, cell_m=cell_m)
    if out is not None:
        FORMATS[out.suffix[1:].lower()](out, list(coverage.layers))
    if as_json:
        figures = {name: getattr(coverage, name) for name in coverage.__dataclass_fields__ if name != "layers"}
        click.echo(msgspec.json.encode(figures).decode())
        return
    click.echo(
        f"{coverage.covered_m2:,.0f} m² covered by {coverage.frames} frames; {coverage.without_place} without a place"
    )
    if coverage.area_m2:
        share = (coverage.gaps_m2 or 0.0) / coverage.area_m2
        click.echo(f"{coverage.gaps_m2:,.0f} m² of the searched {coverage.area_m2:,.0f} m² not covered ({share:.1%})")
    click.echo("Coverage is where the cameras looked. It is not a probability of detection.")
