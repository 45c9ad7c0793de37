"""``overflight archive``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.runtime.overflight import Overflight
    from overflight.station.archive import Archive, ArchivedFlight

_PATH: Any = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Keep flights together on the ground, so that they can be searched."""


@command.command("add")
@click.argument("archive", type=_PATH)
@click.argument("sources", type=_PATH, nargs=-1, required=True)
@click.option("--bundle", type=_PATH, help="A bundle for stills, videos and mosaics; the default model's if left out.")
@click.option("--tiles", metavar="auto|RxC", help="Embed the tiles of stills, videos and mosaics too.")
@click.option("--pose", help="Telemetry of a video, as for overflight run.")
@click.option("--camera", help="Angles of view, as for overflight run.")
@click.option("--json", "as_json", is_flag=True, help="Print each flight as a JSON line.")
def add(
    archive: Path,
    sources: tuple[Path, ...],
    bundle: Path | None,
    tiles: str | None,
    pose: str | None,
    camera: str | None,
    as_json: bool,
) -> None:
    """Add flights, folders of stills, videos and GeoTIFF mosaics to ARCHIVE, which is created if missing.

    A flight is copied; any other source is run through the engine first and kept as a flight. Adding the same source
    again changes nothing. A killed command can be repeated.

    \b
    overflight archive add archive flights/first flights/second
    overflight archive add archive stills/ mosaic.tif --tiles auto
    """
    from overflight.runtime.errors import OverflightError
    from overflight.station.archive import Archive
    from overflight.station.archive.sources import is_flight

    target = Archive(archive)
    failed = 0
    with ExitStack() as stack:
        load = cache(
            lambda: stack.enter_context(_load(bundle, tiles))
        )  # one engine for all sources, where one is needed
        for source in sources:
            try:
                if is_flight(source):
                    flight, new = target.add(source)
                else:
                    flight, new = _add_source(target, source, load(), pose, camera, silent=as_json)
            except OverflightError as error:
                if len(sources) == 1:
                    raise
                failed += 1
                click.echo(f"overflight: {error}", err=True)
                continue
            _show(flight, as_json=as_json, note="added" if new else "already in the archive")
    if failed:
        click.echo(f"{failed} of {len(sources)} sources were not added", err=True)
        sys.exit(1)


@command.command("list")
@click.argument("archive", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print each flight as a JSON line.")
def list_(archive: Path, as_json: bool) -> None:
    """List the flights of ARCHIVE, the earliest first."""
    from overflight.station.archive import Archive

    for flight in Archive(archive).flights():
        _show(flight, as_json=as_json)


@command.command("remove")
@click.argument("archive", type=_PATH)
@click.argument("flights", nargs=-1, required=True)
def remove(archive: Path, flights: tuple[str, ...]) -> None:
    """Remove FLIGHTS (id or name) and their files from ARCHIVE."""
    from overflight.station.archive import Archive

    target = Archive(archive)
    for flight in [target.flight(name) for name in flights]:
        target.remove(flight)
        _show(flight, as_json=False, note="removed")


@command.command("clusters")
@click.argument("archive", type=_PATH)
@click.option("--count", type=click.IntRange(2, 100), default=8, show_default=True, help="Groups to make.")
@click.option("--bundle", type=_PATH, help="The bundle whose flights are grouped; the default model's if left out.")
@click.option("--out", type=_PATH, help="A folder for the typical picture of each group.")
@click.option("--json", "as_json", is_flag=True, help="Print each group as a JSON line.")
def clusters(archive: Path, count: int, bundle: Path | None, out: Path | None, as_json: bool) -> None:
    """Group the frames of ARCHIVE by content, the largest group first."""
    import msgspec

    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.station.archive import Archive
    from overflight.station.archive.clusters import cluster
    from overflight.station.archive.pictures import write_row_picture

    target = Archive(archive)
    groups = cluster(target, Bundle.open(bundle or default_bundle(), signed=False).manifest.tower, count)
    for number, group in enumerate(groups, start=1):
        picture = write_row_picture(target, group.typical_row, out / f"{number}.jpg") if out else None
        if as_json:
            click.echo(msgspec.json.encode(group).decode())
            continue
        labels = ", ".join(f"{label} {seen}" for label, seen in group.labels.items())
        click.echo(f"{number}. {group.size} frames ({group.share:.0%}), {labels}" + (f"; {picture}" if picture else ""))


@command.command("check")
@click.argument("archive", type=_PATH)
@click.option("--search-in", type=_PATH, help="Look for moved sources in this folder, and note their new place.")
@click.option("--repair", is_flag=True, help="Build damaged segments again from the kept flights.")
@click.option("--json", "as_json", is_flag=True, help="Print each finding as a JSON line.")
def check_(archive: Path, search_in: Path | None, repair: bool, as_json: bool) -> None:
    """Check every file of ARCHIVE against its hash, and report leftovers and missing sources.

    Exit code 1 when an embedding or a record is missing or altered.
    """
    import msgspec

    from overflight.station.archive import Archive
    from overflight.station.archive.check import check, relocate
    from overflight.station.archive.check import repair as rebuild

    target = Archive(archive)
    if repair:
        for flight in rebuild(target):
            click.echo(f"segment of {flight} built again", err=as_json)
    findings = check(target, search_in=search_in)
    if search_in is not None:
        click.echo(f"{relocate(target, findings)} moved sources found", err=as_json)
    for one in findings:
        text = f"{one.problem}: {one.path}" + (f", now {one.found_at}" if one.found_at else "")
        click.echo(msgspec.json.encode(one).decode() if as_json else text)
    harmful = sum(not one.harmless for one in findings)
    if not as_json:
        click.echo(f"{len(target.flights())} flights, {harmful} damaged files, {len(findings) - harmful} remarks")
    if harmful:
        sys.exit(1)


def _load(bundle: Path | None, tiles: str | None) -> Overflight:
    from overflight.runtime import Overflight
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.tiles import Tiling

    return Overflight.load(Bundle.open(bundle or default_bundle()), tiling=Tiling.parse(tiles) if tiles else None)


def _add_source(
    target: Archive, source: Path, overflight: Overflight, pose: str | None, camera: str | None, *, silent: bool
) -> tuple[ArchivedFlight, bool]:
    from overflight.runtime.flight.live_line import LiveLine
    from overflight.station.archive.sources import add_source

    with LiveLine(silent=silent) as line:
        return add_source(target, source, overflight, pose=pose, camera=camera, on_observation=line.watch)


def _show(flight: ArchivedFlight, *, as_json: bool, note: str = "") -> None:
    import msgspec

    from overflight.runtime.geofiles.layers import iso

    if as_json:
        click.echo(msgspec.json.encode(flight).decode())
        return
    when = iso(flight.began_utc_ns) if flight.began_utc_ns else "time unknown"
    missing = f", {flight.unindexed} without embedding" if flight.unindexed else ""
    click.echo(
        f"{flight.id}  {flight.name}  {flight.kind}, {flight.frames} frames, {flight.rows} rows{missing}, {when}, "
        f"{flight.model}" + (f"  {note}" if note else "")
    )
