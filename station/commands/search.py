"""``overflight search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.station.search import Found

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("archive", type=_PATH)
@click.argument("texts", nargs=-1)
@click.option("--like", type=_PATH, multiple=True, help="A picture to look for; PICTURE#X,Y,WIDTH,HEIGHT is a part.")
@click.option("--unlike", multiple=True, help="Rank what differs most from this reference flight; repeatable.")
@click.option("--not", "unwanted", multiple=True, help="A text that lowers the score of what fits it.")
@click.option("--bundle", type=_PATH, help="The bundle whose towers made the flights; the default model's if left out.")
@click.option("--templates", default="aerial", show_default=True, help="Forms that names are set into; see labels.")
@click.option("--after", help="Only what was taken at this time (ISO 8601, UTC) or later.")
@click.option("--before", help="Only what was taken before this time.")
@click.option("--near", metavar="LAT,LON,RADIUS_M", help="Only ground within this circle.")
@click.option("--inside", metavar="LAT,LON LAT,LON …", help="Only ground whose middle is in this polygon.")
@click.option("--height", metavar="LEAST,MOST", help="Only frames taken between these heights in metres.")
@click.option("--flight", "flights", multiple=True, help="Only this flight (id or name); repeatable.")
@click.option("--label", "labels", multiple=True, help="Only rows that got this label in flight; repeatable.")
@click.option("--reviewed", type=click.Choice(["yes", "no", "confirmed", "rejected"]), help="Only these findings.")
@click.option("--kind", type=click.Choice(["all", "frames", "tiles"]), default="all", show_default=True)
@click.option("--most", type=click.IntRange(1), default=25, show_default=True, help="Groups of hits to return.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="The next --most groups, and so on.")
@click.option(
    "--false-alarm",
    type=Finite(0, 0.5),
    default=0.05,
    show_default=True,
    help="Share of absent things that may be found; lower is stricter.",
)
@click.option("--rank", is_flag=True, help="Return the best groups even when they are below the cut-off.")
@click.option("--wall", type=_PATH, multiple=True, help="Write a page with maps (.html) or a contact sheet (.png).")
@click.option("--out", type=_PATH, multiple=True, help="Write the hits as .geojson, .gpkg, .kmz or .csv; repeatable.")
@click.option("--changes", is_flag=True, help="Find a change: the text says what became what between two dates.")
@click.option("--date", "dates", multiple=True, metavar="FLIGHT=DATE", help="With --changes: a date that it lacks.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def command(
    archive: Path, texts: tuple[str, ...], as_json: bool, changes: bool, dates: tuple[str, ...], **given: Any
) -> None:
    """Search an archive by sentences and pictures.

    ARCHIVE is a directory made by overflight archive add. Every text must fit; the answer is "not found" when nothing
    is above the cut-off, which few texts of absent things reach. Exit code 0 either way.

    \b
    overflight search archive "flooded road" --not river --wall wall.html
    overflight search archive --like roof.jpg --near 47.37,8.54,500 --out hits.kmz
    overflight search archive 停车场
    overflight search archive --unlike flights-of-last-week
    overflight search archive --changes "new houses on bare soil" --out new.gpkg
    """
    if changes:
        _search_changes(archive, texts, dates, given, as_json=as_json)
        return
    if dates:
        raise click.UsageError("--date belongs to --changes; --after and --before filter by time")
    from overflight.station.search.filter_text import read_filters
    from overflight.station.search.report import run

    found, title = run(archive, texts, filters=lambda rows: read_filters(given, rows), **_options(given))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
        return
    _show(found, title)
    unplaced = sum(hit.lat_deg is None for hit in found.hits)
    if given["out"] and unplaced:
        click.echo(f"{unplaced} of {len(found.hits)} hits have no place: of the files, only a CSV holds them")


def _search_changes(
    archive: Path, texts: tuple[str, ...], dates: tuple[str, ...], given: dict[str, Any], *, as_json: bool
) -> None:
    from overflight.station.search.change_report import answer_text, caption, read_as, run
    from overflight.station.search.filter_text import read_filters

    if given["like"] or given["unlike"] or given["unwanted"] or given["reviewed"] or given["page"] > 1:
        raise click.UsageError("--changes takes one text; leave out --like, --unlike, --not, --reviewed and --page")
    passed = {name: given[name] for name in ("bundle", "templates", "most", "false_alarm", "rank", "wall", "out")}
    found = run(archive, texts, filters=read_filters(given, None), dates=dates, **passed)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(f"{texts[0]} (read as: {read_as(found)}): {answer_text(found)}")
    for number, hit in enumerate(found.hits, start=1):
        more = f"; {hit.grouped} more of the same ground" if hit.grouped else ""
        click.echo(f"{number:3}. {caption(hit)}{more}")
    if found.undated:
        click.echo(
            f"left out, for they have no date: {', '.join(found.undated)}; name it with --date FLIGHT=2024-05-17"
        )
    if found.unplaced or found.unknown:
        click.echo(f"{found.unplaced} tiles have no place, {found.unknown} lack what a filter needs")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    passed = "like unlike unwanted bundle templates most page false_alarm rank wall out reviewed"
    return {name: given[name] for name in passed.split()}


def _show(found: Found, title: str) -> None:
    from overflight.station.search.wall import answer_text, caption, place_text

    for chinese, english in found.translated.items():
        click.echo(f"{chinese}: searched as {english!r}")
    click.echo(f"{title}: {answer_text(found)}")
    if found.unknown:
        click.echo(f"{found.unknown} rows were passed over: the filter needs a value that they lack")
    if found.other_towers:
        click.echo(f"{found.other_towers} flights of other models were left out; search them with their --bundle")
    if found.unindexed:
        click.echo(f"{found.unindexed} frames have no embedding and cannot be found")
    for number, hit in enumerate(found.hits, start=1):
        where, fit = caption(hit)
        more = f"; {len(hit.grouped)} more of the same pass or ground" if hit.grouped else ""
        click.echo(f"{number:3}. {hit.number}  {where}")
        click.echo(f"     {fit}{more}")
        if placed := place_text(hit):
            click.echo(f"     {placed}")
        if seen := found.same_ground.get(hit.row):
            click.echo(f"     same ground: {', '.join(seen)}")
