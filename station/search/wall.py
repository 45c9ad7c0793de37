"""The hits of a search as a wall of pictures: one HTML page with maps, or one PNG contact sheet."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.geodesy import distance_m
from overflight.runtime.geofiles.layers import iso
from overflight.runtime.sources.image import opencv
from overflight.station.archive.pictures import cut_tile, picture_of
from overflight.station.archive.rows import ring_of
from overflight.station.map import Marked, draw_marks
from overflight.station.page import page, tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from overflight.station.archive import Archive, ArchivedFlight
    from overflight.station.search.ranking import Hit
    from overflight.station.search.search import Found

COLUMNS = 5
CELL_PX, HIGH_PX, CAPTION_PX, GAP_PX = 240, 150, 46, 12
ONE_MAP_M = 20_000.0  # hits that are farther apart are drawn on maps of their own
MOST_MAPS = 12
MARK = "#e8a85c"


class Picture(NamedTuple):
    """A hit's JPEG, empty where none is left, and a remark for people."""

    jpeg: bytes
    remark: str


def pictures_of(archive: Archive, hits: Sequence[Hit]) -> list[Picture]:
    """Return a picture for each hit, with its tile marked."""
    flights = {flight.id: flight for flight in archive.flights()}
    return [_picture(archive, flights, hit) for hit in hits]


def _picture(archive: Archive, flights: dict[str, ArchivedFlight], hit: Hit) -> Picture:
    from overflight.station.archive.rows import grid_of

    found = picture_of(archive, flights[hit.flight], hit.frame, hit.name)
    if found is None:
        return Picture(b"", "no picture kept")
    jpeg = found.jpeg
    if hit.tile and (grid := grid_of(archive, hit.flight, hit.frame)) is not None:
        jpeg = cut_tile(jpeg, hit.tile, *grid)
    return Picture(jpeg, f"picture {found.frames_away} frames away" if found.frames_away else "")


def caption(hit: Hit) -> tuple[str, str]:
    """Return two lines for people: where the hit comes from, and how well it fits."""
    where = f"{hit.flight_name} · {hit.name or f'frame {hit.frame}'}" + (f" · tile {hit.tile}" if hit.tile else "")
    fit = f"score {hit.score:.3f} · above {hit.percentile:.1f} % of the archive"
    if hit.background is not None:
        fit += f" · {hit.background:.0f} % of absent things"
    return where, fit


def place_text(hit: Hit) -> str:
    """Return a hit's place and time for people."""
    parts = []
    if hit.lat_deg is not None and hit.lon_deg is not None:
        parts.append(f"{hit.lat_deg:.5f}, {hit.lon_deg:.5f}" + (f" ± {hit.error_m:.0f} m" if hit.error_m else ""))
    if hit.utc_ns:
        parts.append(iso(hit.utc_ns) or "")
    return " · ".join(parts)


def answer_text(found: Found) -> str:
    """Return the answer of a search in one or two sentences."""
    if not found.searched:
        return "Nothing to search: no row passes the filters."
    if found.cutoff is None:
        return f"{len(found.hits)} best of {found.searched} rows. Pictures only rank: there is no cut-off."
    if not found.held_out:
        text = f"above the difference {found.cutoff:.3f} that {found.false_alarm:.0%} of the reference itself has"
        return f"{len(found.hits) or 'No'} groups of {found.searched} rows are {text}."
    alarms = round((found.false_alarm or 0.0) * found.held_out)
    rate = f"{alarms} of {found.held_out} absent things would be found here"
    above = sum(hit.cosine > found.cutoff for hit in found.hits)
    if not above:
        best = f"; the best row has {found.best[0].cosine:.3f}" if found.best else ""
        return f"Not found: no row of {found.searched} is above the cut-off {found.cutoff:.3f}{best} ({rate})."
    return f"{above} found among {found.searched} rows, cut-off {found.cutoff:.3f} ({rate})."


def check_wall(path: Path) -> None:
    """Raise UsageError where a wall cannot be written under this name."""
    if path.suffix.lower() not in {".html", ".htm", ".png"}:
        raise UsageError(f"{path}: ends in {path.suffix!r}; expected .html, a page with maps, or .png, a contact sheet")


def write_wall(
    path: Path, title: str, found: Found, hits: Sequence[Hit], pictures: Sequence[Picture], archive: Archive
) -> None:
    """Write the wall: a contact sheet (``.png``), or a page with the hits of ``archive`` on maps (``.html``)."""
    from overflight.runtime.durable import write_atomically

    check_wall(path)
    if path.suffix.lower() == ".png":
        _, encoded = opencv().imencode(".png", contact_sheet(title, found, hits, pictures))
        write_atomically(path, bytes(encoded))
        return
    cards = [
        _card(number, hit, picture, found.same_ground.get(hit.row, ()))
        for number, (hit, picture) in enumerate(zip(hits, pictures, strict=True), start=1)
    ]
    header = tag(
        "header", tag("p", "Search", class_="kind"), tag("h1", title), tag("p", answer_text(found), class_="lead")
    )
    body = tag("main", header, tag("section", cards, class_="wall"), _maps(archive, hits))
    write_atomically(path, page(title, [body], style="search/wall.css", script="search/wall.js"))


def _maps(archive: Archive, hits: Sequence[Hit]) -> Element | None:
    """Draw the hits that have a place, numbered as on the wall: one map for each region, the best hit's first."""
    regions: list[list[Marked]] = []
    owners: list[set[str]] = []
    for number, hit in enumerate(hits, start=1):
        if hit.lat_deg is None or hit.lon_deg is None:
            continue
        mark = Marked(
            number, (hit.lon_deg, hit.lat_deg), caption(hit)[0], ring_of(archive, hit.flight, hit.frame, hit.tile)
        )
        near = (place for place, marks in enumerate(regions) if _near(marks[0], mark))
        place = next(near, len(regions))
        if place == len(regions):
            regions.append([])
            owners.append(set())
        regions[place].append(mark)
        owners[place].add(hit.flight)
    if not regions:
        return None
    flights = archive.flights()
    drawn = [
        tag("figure", draw_marks(marks, [archive.track(one) for one in flights if one.id in names], MARK))
        for marks, names in zip(regions[:MOST_MAPS], owners, strict=False)
    ]
    note = "North is up. The numbers are those of the pictures, the lines are the flights."
    if len(regions) > MOST_MAPS:
        note += f" {len(regions) - MOST_MAPS} more regions are not drawn; a KMZ or GeoPackage (--out) has every place."
    return tag("section", tag("h2", "Map" if len(drawn) == 1 else "Maps"), tag("div", drawn, class_="maps"),
               tag("p", note, class_="note"))  # fmt: skip


def _near(one: Marked, other: Marked) -> bool:
    return distance_m(one.point[::-1], other.point[::-1]) <= ONE_MAP_M


def _card(number: int, hit: Hit, picture: Picture, seen: Sequence[str]) -> Element:
    where, fit = caption(hit)
    source = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
    shown = (
        tag("img", src=source, alt=where, loading="lazy")
        if picture.jpeg
        else tag("div", picture.remark, class_="empty")
    )
    lines = [tag("b", f"{number}. {where}"), tag("span", fit)]
    lines += [tag("span", text) for text in (place_text(hit), picture.remark if picture.jpeg else "") if text]
    if hit.grouped:
        lines.append(tag("span", f"and {len(hit.grouped)} more of the same pass or ground"))
    if seen:
        lines.append(tag("span", f"same ground in other flights: {', '.join(seen)}"))
    return tag("figure", shown, tag("figcaption", lines))


def contact_sheet(title: str, found: Found, hits: Sequence[Hit], pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Draw the hits on one sheet, BGR ``[H, W, 3]``."""
    cv2 = opencv()
    rows = max(1, -(-len(hits) // COLUMNS))
    cell = (CELL_PX + GAP_PX, HIGH_PX + CAPTION_PX + GAP_PX)
    sheet = np.full((rows * cell[1] + 96, COLUMNS * cell[0] + GAP_PX, 3), 250, np.uint8)
    _write(sheet, title, (GAP_PX, 38), 0.8, (30, 30, 30), 2)
    _write(sheet, answer_text(found), (GAP_PX, 68), 0.46, (90, 90, 90))
    for number, (hit, picture) in enumerate(zip(hits, pictures, strict=True)):
        left, top = GAP_PX + number % COLUMNS * cell[0], 84 + number // COLUMNS * cell[1]
        space = sheet[top : top + HIGH_PX, left : left + CELL_PX]
        if picture.jpeg:
            shown = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
            _fit(space, shown)
        else:
            space[:] = 225
        where, _ = caption(hit)
        _write(sheet, f"{number + 1}. {where}"[:36], (left, top + HIGH_PX + 16), 0.38, (40, 40, 40))
        _write(
            sheet,
            f"{hit.score:.3f}  {place_text(hit)}"[:36],
            (left, top + HIGH_PX + 33),
            0.36,
            (110, 110, 110),
        )
    return sheet


def _fit(space: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
    """Resize a picture into a cell, keeping its shape."""
    cv2 = opencv()
    scale = min(space.shape[0] / shown.shape[0], space.shape[1] / shown.shape[1])
    size = (max(1, int(shown.shape[1] * scale)), max(1, int(shown.shape[0] * scale)))
    small = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    space[: size[1], : size[0]] = small


def _write(
    sheet: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    scale: float,
    colour: tuple[int, int, int],
    weight: int = 1,
) -> None:
    """Write a line; OpenCV's fonts know ASCII only."""
    cv2 = opencv()
    plain = text.replace("·", "-").replace("±", "+-").encode("ascii", "replace").decode()
    cv2.putText(sheet, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)
