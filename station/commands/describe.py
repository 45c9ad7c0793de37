"""``overflight describe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.station.describe.describe import Described
    from overflight.station.words import Language

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH)
@click.option("--labels", default="description", show_default=True, help="A bank, a label file, or a shipped name.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--gsd", "gsd_m", type=float, help="Metres of ground a pixel, where the file does not say.")
@click.option("--tile", "tile_px", type=click.IntRange(16, 8192), help="Side of a tile in pixels.")
@click.option("--margin", type=Finite(0, 1), default=0.1, show_default=True, help="Least lead in share.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option(
    "--out", "-o", type=_PATH, multiple=True, help="Write .json, .md, .html, .gpkg, .geojson or .csv; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the description as JSON.")
def command(source: Path, language: Language, out: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Describe a picture, a mosaic or a flight: place, cover, state, season, quality.

    SOURCE is a picture, a GeoTIFF or the directory of a flight. Fields abstain where their score or their margin is too
    low. Shares count tiles; areas are given only where the ground sample distance is known.

    \b
    overflight describe field.jpg
    overflight describe mosaic.tif --labels land-use -o tiles.gpkg -o description.json
    overflight describe flights/first --language zh -o description.html
    """
    import msgspec

    from overflight.station.output import check_outputs

    check_outputs(out, (".json", ".md", ".html", ".gpkg", ".geojson", ".csv"))
    described = _describe(source, **given)
    for path in out:
        _write(described, path, language)
    if as_json:
        click.echo(msgspec.json.encode(described.description).decode())
        return
    _show(described, language)


def _describe(
    source: Path, *, labels: str, bundle: Path | None, gsd_m: float | None, tile_px: int | None, margin: float
) -> Described:
    from overflight.export.shipped_labels import bank_of
    from overflight.station.archive.sources import is_flight
    from overflight.station.describe import describe_flight, describe_picture
    from overflight.station.ground.towers import image_tower, open_bundle

    flown = is_flight(source)
    if flown and (gsd_m is not None or tile_px is not None):
        raise click.UsageError("--gsd and --tile are for pictures: a flight has its own footprints and tiles")
    opened = open_bundle(bundle)
    bank = bank_of(labels, opened)
    if flown:
        return describe_flight(source, bank, opened.manifest, margin=margin)
    with image_tower(opened) as embed:
        return describe_picture(source, bank, opened.manifest, embed, gsd_m=gsd_m, tile_px=tile_px, margin=margin)


def _write(described: Described, path: Path, language: Language) -> None:
    import msgspec

    from overflight.runtime.durable import write_atomically
    from overflight.station.describe.map import export_tiles
    from overflight.station.describe.write import to_html, to_markdown

    match path.suffix.lower():
        case ".json":
            raw = msgspec.json.encode(described.description)
            write_atomically(path, msgspec.json.format(raw, indent=2) + b"\n")
        case ".md":
            write_atomically(path, to_markdown(described.description, language).encode())
        case ".html":
            write_atomically(path, to_html(described.description, language))
        case _:
            export_tiles(described, path, language)


def _show(described: Described, language: Language) -> None:
    from overflight.station.describe.write import (
        alternatives_text,
        area_text,
        fields_by_dimension,
        lead,
        name_text,
        number_text,
        remarks,
        value_text,
    )
    from overflight.station.words import label_name, say

    description = described.description
    click.echo(lead(description, language))
    for dimension, fields in fields_by_dimension(description):
        click.echo(f"\n{say(dimension, language)}")
        for field in fields:
            numbers = f"{number_text(field.score)} {number_text(field.margin):>6}"
            click.echo(f"  {name_text(field, language)}: {value_text(field, language)}  [{numbers}]")
            if others := alternatives_text(field, language):
                click.echo(f"      {others}")
        for share in description.cover if dimension == "cover" else ():
            area = "" if share.area_m2 is None else f"  {area_text(share)}"
            bounds = f"{share.low:.0%} - {share.high:.0%}"
            click.echo(f"  {share.share:5.0%}  ({bounds})  {label_name(share.label, language)}{area}")
    click.echo()
    for remark in remarks(description, language):
        click.echo(remark)
