"""``overflight series``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.station.series.series import Result
    from overflight.station.words import Language

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("sources", type=_PATH, nargs=-1, required=True)
@click.option("--date", "dates", multiple=True, help="The date of each source, in their order; repeatable.")
@click.option("--labels", default="description", show_default=True, help="A bank, a label file, or a shipped name.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--background", nargs=2, type=_PATH, multiple=True, help="A pair without a change; repeatable.")
@click.option("--gsd", "gsd_m", type=float, help="Metres of ground a pixel, where the files do not say.")
@click.option("--tile", "tile_px", type=click.IntRange(16, 8192), help="Side of a tile in pixels.")
@click.option("--false-alarm", type=Finite(0.0001, 0.5), default=0.01, show_default=True,
              help="Share of background tiles that may be called changed.")  # fmt: skip
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--out", "-o", type=_PATH, multiple=True, help="Write .html, .json, .csv, .gpkg or .geojson; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the series as JSON.")
def command(
    sources: tuple[Path, ...], dates: tuple[str, ...], language: Language, out: tuple[Path, ...], as_json: bool,
    labels: str, bundle: Path | None, **given: Any
) -> None:  # fmt: skip
    """Follow one ground over three dates or more: when it changed, and what each label did.

    SOURCES are pictures of one shape, georeferenced files, or flights. Their dates come from their tags, their flights
    or their names (site-2024-05-17.tif), or from --date. Sources whose dates have no order are refused.

    \b
    overflight series site-2023.tif site-2024.tif site-2025.tif -o series.html -o series.csv
    overflight series flights/may flights/june flights/july --language zh
    """
    from overflight.export.shipped_labels import bank_of
    from overflight.station.ground.towers import image_tower, open_bundle
    from overflight.station.output import check_outputs
    from overflight.station.series.dates import read_date
    from overflight.station.series.series import follow_sources
    from overflight.station.series.write import FORMATS

    check_outputs(out, FORMATS)
    opened = open_bundle(bundle)
    bank = bank_of(labels, opened)
    read = [read_date(text) for text in dates]
    with image_tower(opened) as embed:
        result = follow_sources(sources, bank, opened.manifest, embed, dates=read, **given)
    for path in out:
        _write(result, path, language)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(result.series).decode())
        return
    _show(result, language)


def _write(result: Result, path: Path, language: Language) -> None:
    import msgspec

    from overflight.runtime.durable import write_atomically
    from overflight.station.series.write import export_series, to_html

    match path.suffix.lower():
        case ".json":
            write_atomically(path, msgspec.json.format(msgspec.json.encode(result.series), indent=1) + b"\n")
        case ".html":
            write_atomically(path, to_html(result, language))
        case _:
            export_series(result.series, path)


def _show(result: Result, language: Language) -> None:
    from overflight.station.series.write import sentences
    from overflight.station.words import label_name

    series = result.series
    for sentence in sentences(series, language):
        click.echo(sentence)
    for date in series.dates:
        click.echo(f"{date.date} ({date.origin})  {date.source}  {date.registration.state}")
    for one in series.intervals:
        before, after = series.dates[one.before].date, series.dates[one.after].date
        mark = "changed" if one.evident else "no more than false alarms"
        click.echo(
            f"{before} to {after}: {one.changed} of {one.compared} tiles, {one.low:.0%} to {one.high:.0%}, {mark}"
        )
    for curve in series.curves:
        name = label_name(None if curve.label == "unknown" else curve.label, language)
        click.echo(f"{name}: " + " ".join(f"{point.share:.0%}" if point.shown else "-" for point in curve.points))
    for note in series.notes:
        click.echo(f"note: {note}", err=True)
