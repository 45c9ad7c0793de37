"""One search for a change from the command line's words to its answer and its files."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.geofiles.geojson import write_geojson
from overflight.runtime.geofiles.geometry import polygon
from overflight.runtime.geofiles.geopackage import write_geopackage
from overflight.runtime.geofiles.layers import Feature, Layer
from overflight.runtime.geofiles.table import write_csv
from overflight.station.page import page, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from overflight.runtime.geofiles.layers import Value
    from overflight.station.archive import Archive
    from overflight.station.search.changed import ChangeHit, ChangesFound, Seen
    from overflight.station.search.filters import Filters


def run(
    directory: Path,
    texts: Sequence[str],
    *,
    filters: Filters,
    dates: Sequence[str] = (),
    bundle: Path | None = None,
    templates: str = "aerial",
    most: int = 25,
    false_alarm: float = 0.05,
    rank: bool = False,
    wall: Sequence[Path] = (),
    out: Sequence[Path] = (),
) -> ChangesFound:
    """Search an archive for one change, write what was asked for, and return the answer."""
    import msgspec

    from overflight.export.encode import TextEncoder
    from overflight.export.prompts import read_templates
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.station.archive import Archive
    from overflight.station.search.changed import search_changes
    from overflight.station.search.terms import embed_texts

    if len(texts) != 1:
        raise UsageError(f"--changes: {len(texts)} texts, expected one such as 'new houses on bare soil'")
    archive, opened, forms = Archive(directory), Bundle.open(bundle or default_bundle()), read_templates(templates)

    with TextEncoder(opened) as encoder:

        def embed(wanted: Sequence[str]) -> NDArray[np.float32]:
            return embed_texts(encoder, wanted, forms)

        found = search_changes(
            archive,
            opened,
            read_query(texts[0]),
            filters,
            embed=embed,
            most=most,
            false_alarm=false_alarm,
            dates=dict(_given(text) for text in dates),
        )
    if rank:
        found = msgspec.structs.replace(found, hits=found.best)
    for path in out:
        export_changes(found.hits, path)
    for path in wall:
        write_wall(archive, found, texts[0], path)
    return found


def read_query(text: str) -> Any:
    """Read a change from its words; Chinese parts are translated with the dictionary. Raises UsageError."""
    from overflight.station.changes.retrieve import ChangeQuery
    from overflight.station.search.dictionary import translate
    from overflight.station.search.terms import IDEOGRAPH

    query = ChangeQuery.parse(text)
    parts = (translate(part) if IDEOGRAPH.search(part) else part for part in (query.before, query.after))
    return ChangeQuery(*parts)


def _given(text: str) -> tuple[str, Any]:
    from overflight.station.series.dates import read_date

    name, equals, date = text.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--date {text}: expected FLIGHT=DATE, such as survey=2024-05-17")
    return name, read_date(date)


def answer_text(found: ChangesFound) -> str:
    """Return the answer in one or two sentences."""
    alarms = round(found.false_alarm * found.held_out)
    rate = f"{alarms} of {found.held_out} absent changes would be found here"
    what = f"{found.searched} pairs of tiles of {found.flight_pairs} pairs of flights"
    above = sum(hit.score > found.cutoff for hit in found.hits)
    if not above:
        best = f"; the best has {found.best[0].score:+.3f}" if found.best else ""
        return f"Not found: none of {what} is above the cut-off {found.cutoff:+.3f}{best} ({rate})."
    return f"{above} found among {what}, cut-off {found.cutoff:+.3f} ({rate})."


def read_as(found: ChangesFound) -> str:
    """Return how the text was understood."""
    return " and ".join(
        part
        for part in (
            f"less like {found.before!r}" * bool(found.before),
            f"more like {found.after!r}" * bool(found.after),
        )
        if part
    )


def caption(hit: ChangeHit) -> str:
    """Return a hit's score, dates and place for people."""
    return (
        f"{hit.score:+.3f}  {hit.before.date} {_where(hit.before)} -> {hit.after.date} {_where(hit.after)}  "
        f"{hit.lat_deg:.5f}, {hit.lon_deg:.5f}"
    )


def export_changes(hits: Sequence[ChangeHit], path: Path) -> None:
    """Write the hits' ground as .geojson or .gpkg, or a table .csv. Raises UsageError for none and other endings."""
    if not hits:
        raise UsageError(f"{path}: nothing was found, so nothing is written; --rank writes the best anyway")
    layer = Layer("changes", [Feature(polygon(hit.ring), _properties(hit)) for hit in hits])
    match path.suffix.lower():
        case ".geojson":
            write_geojson(path, [layer])
        case ".gpkg":
            write_geopackage(path, [layer])
        case ".csv":
            write_csv(path, [layer])
        case ending:
            raise UsageError(f"{path}: ends in {ending!r}; expected one of .geojson, .gpkg, .csv")


def write_wall(archive: Archive, found: ChangesFound, title: str, path: Path) -> None:
    """Write a page on which both dates of each hit are next to each other."""
    if path.suffix.lower() != ".html":
        raise UsageError(f"{path}: ends in {path.suffix!r}; with --changes the wall is a page (.html)")
    flights = {flight.id: flight for flight in archive.flights()}
    cards = [
        tag(
            "figure",
            [_picture(archive, flights, seen) for seen in (hit.before, hit.after)],
            tag("figcaption", f"{number}. ", caption(hit)),
        )
        for number, hit in enumerate(found.hits, start=1)
    ]
    header = tag(
        "header", tag("p", "Changes", class_="kind"), tag("h1", title), tag("p", answer_text(found), class_="lead"),
        tag("p", f"Read as: {read_as(found)}."),
    )  # fmt: skip
    body = tag("main", header, tag("section", cards, class_="changes"))
    write_atomically(path, page(title, [body], style="search/wall.css", script=None))


def _picture(archive: Archive, flights: Mapping[str, Any], seen: Seen) -> Any:
    from overflight.station.archive.pictures import cut_tile, picture_of
    from overflight.station.archive.rows import grid_of

    found = picture_of(archive, flights[seen.flight], seen.frame, seen.name)
    if found is None:
        return tag("p", f"{seen.date}: no picture kept")
    grid = grid_of(archive, seen.flight, seen.frame) if seen.tile else None
    jpeg = found.jpeg if grid is None else cut_tile(found.jpeg, seen.tile, *grid)
    return tag("img", src=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", alt=f"{seen.number} {seen.date}")


def _where(seen: Seen) -> str:
    return seen.number + (f" ({seen.flight_name})" if seen.flight_name else "")


def _properties(hit: ChangeHit) -> dict[str, Value]:
    return {
        "score": hit.score,
        "background": hit.background,
        "date_before": hit.before.date,
        "date_after": hit.after.date,
        "flight_before": hit.before.flight_name,
        "flight_after": hit.after.flight_name,
        "finding_before": hit.before.number,
        "finding_after": hit.after.number,
        "grouped": hit.grouped,
    }
