"""Cases from public reports of comparable tools: Immich, PhotoPrism, FiftyOne, Label Studio, Frigate, ADIAT.

Covers: station/archive/ingest.py, station/archive/places.py, station/search/filters.py, station/search/search.py,
station/search/export.py, station/search/wall.py, station/review/store.py
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import sys
import unicodedata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import fromstring

import msgspec
import numpy as np
import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.pose.footprint import Place
from overflight.runtime.records import Observation
from overflight.station.archive import Archive
from overflight.station.archive.check import check, relocate
from overflight.station.review import findings, mark
from overflight.station.search import Filters, Terms, search
from overflight.station.search.export import check_formats, export_hits
from overflight.station.search.filters import inside
from overflight.station.search.ranking import Hit
from overflight.station.search.search import same_ground
from overflight.station.search.wall import Picture, answer_text, check_wall, pictures_of, write_wall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

    Fly = Callable[..., Path]

RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)
NONE = np.empty((0, 3), np.float32)


def red() -> Terms:
    """Look for red, as a picture does: without a cut-off."""
    vector = np.array(RED, np.float32) - 100
    return Terms(NONE, (vector / np.linalg.norm(vector))[None], NONE)


def no_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    raise AssertionError("no text is embedded here")


def find(archive: Archive, bundle: Bundle, filters: Filters | None = None) -> tuple[Hit, ...]:
    return search(archive, bundle, red(), filters, embed=no_texts).hits


def put(flight: Path, *places: Place) -> Path:
    """Give each frame of a flight the next place."""
    with sqlite3.connect(flight / "journal.sqlite") as connection:
        rows = connection.execute("SELECT id, record FROM observations ORDER BY id").fetchall()
        for (row, record), place in zip(rows, places, strict=True):
            seen = msgspec.structs.replace(msgspec.json.decode(record, type=Observation), place=place)
            connection.execute("UPDATE observations SET record = ? WHERE id = ?", (msgspec.json.encode(seen), row))
    return flight


def square(west: float, south: float, size: float = 0.001) -> Place:
    """Return the place of a square of ground; longitudes stay in [-180, 180)."""
    east, north = west + size, south + size
    corners = ((west, south), (east, south), (east, north), (west, north))
    ring = tuple(((lon + 180) % 360 - 180, lat) for lon, lat in corners)
    return Place(south + size / 2, (west + size / 2 + 180) % 360 - 180, 3.0, ring, gsd_m=0.1)


@pytest.mark.parametrize("turn", [0.0, 180.0 - 8.5005, -180.0 - 8.5005])
def test_the_same_ground_of_several_flights_is_one_hit_and_no_flight_hides_another(
    fly_over: Fly, colour_bundle: Bundle, tmp_path: Path, turn: float
) -> None:
    """Frames that did not match are named too: of each flight the nearest. Also on the date line."""
    archive = Archive(tmp_path / "archive")
    west = 8.5 + turn
    archive.add(put(fly_over("now", [RED]), square(west, 47.0)))
    archive.add(put(fly_over("long", [RED, *[GREEN] * 30]), *(square(west + n * 1e-5, 47.0) for n in range(31))))
    archive.add(put(fly_over("old", [BLUE, BLUE]), square(west + 2e-4, 47.0), square(west + 1e-4, 47.0)))
    archive.add(put(fly_over("elsewhere", [RED]), square(west + 0.5, 47.0)))
    names = {flight.id: flight.name for flight in archive.flights()}
    hits = [hit for hit in find(archive, colour_bundle) if hit.score > 0.9]
    assert sorted(hit.flight_name in {"now", "long"} for hit in hits) == [False, True]
    one = next(hit for hit in hits if hit.flight_name != "elsewhere")
    with archive.read() as connection:
        rows = dict(connection.execute("SELECT id, label FROM rows"))
    assert "red" in {rows[row] for row in one.grouped}
    with archive.read() as connection:
        seen = [(names[flight], frame) for flight, frame, _ in same_ground(connection, one, 4)]
    assert sorted(seen[:2]) == sorted([(({"now", "long"} - {one.flight_name}).pop(), 0), ("old", 1)])


def test_a_circle_and_a_polygon_lie_across_the_date_line(fly_over: Fly, colour_bundle: Bundle, tmp_path: Path) -> None:
    """Fiji: ground on both sides of 180°, and on it, is within 500 m of the line."""
    archive = Archive(tmp_path / "archive")
    archive.add(
        put(fly_over("fiji", [RED] * 4), *(square(west, -17.0) for west in (179.9955, 179.9995, -180.0, 179.9)))
    )
    near = find(archive, colour_bundle, Filters(circle=(-17.0, -179.9999, 500.0)))
    assert {hit.frame for hit in near} == {0, 1, 2}
    area = ((179.99, -17.1), (-179.99, -17.1), (-179.99, -16.9), (179.99, -16.9))
    assert {hit.frame for hit in find(archive, colour_bundle, Filters(polygon=area))} == {0, 1, 2}
    assert inside(area, 179.995, -17.0) and inside(area, -179.995, -17.0)
    assert not inside(area, 0.0, -17.0)


def test_a_folder_that_is_added_again_with_one_more_picture_shows_no_hit_twice(
    fly_over: Fly, colour_bundle: Bundle, tmp_path: Path
) -> None:
    """Immich 4925, 29724: a renamed or grown folder is new, and every picture of it was shown twice."""
    first = fly_over("first", [RED, GREEN])
    archive = Archive(tmp_path / "archive")
    archive.add(first)
    again = shutil.copytree(first, tmp_path / "again")
    record = json.loads((again / "flight.json").read_text())
    (again / "flight.json").write_text(json.dumps(record | {"started_utc_ns": record["started_utc_ns"] + 1}))
    archive.add(again)
    assert len(archive.flights()) == 2
    hits = find(archive, colour_bundle)
    assert [(hit.label, len(hit.grouped)) for hit in hits] == [("red", 1), ("green", 1)]


def test_pictures_of_one_name_in_two_folders_are_two(fly_over: Fly, colour_bundle: Bundle, tmp_path: Path) -> None:
    """PhotoPrism 4309: cameras number from the start again, and other pictures of the name were hidden."""
    archive = Archive(tmp_path / "archive")
    archive.add(fly_over("first", [RED]))
    archive.add(fly_over("second", [(250, 90, 30)]))
    assert [hit.name for hit in find(archive, colour_bundle)] == ["000.png", "000.png"]


NAMES = (
    "火灾 🔥 #1.png",
    unicodedata.normalize("NFD", "Märço.png"),
    "a|b'c\"&<d>.png",
    "line\nbreak.png",
    "\x0btab.png",
)


def test_any_name_of_a_picture_survives_archive_search_and_files(
    fly_over: Fly, colour_bundle: Bundle, tmp_path: Path
) -> None:
    """PhotoPrism 2472, 2734, 4383, 4919, Label Studio 1266: special characters in names lost the pictures."""
    flight = fly_over("图片 Genève", [RED] * len(NAMES))
    sources = tmp_path / "sources" / "图片 Genève"
    names = NAMES
    if sys.platform == "win32":
        names = NAMES[:2]
    with sqlite3.connect(flight / "journal.sqlite") as connection:
        rows = connection.execute("SELECT id, record FROM observations ORDER BY id").fetchall()
        for (row, record), name in zip(rows, names, strict=False):
            seen = msgspec.structs.replace(msgspec.json.decode(record, type=Observation), name=name)
            (sources / name).write_bytes((sources / f"{row - 1:03}.png").read_bytes())
            seen = msgspec.structs.replace(seen, place=square(8.5 + row, 47.0))
            connection.execute("UPDATE observations SET record = ? WHERE id = ?", (msgspec.json.encode(seen), row))
    archive = Archive(tmp_path / "archive")
    archive.add(flight)
    hits = find(archive, colour_bundle)
    assert {hit.name for hit in hits} >= set(names)
    pictures = pictures_of(archive, hits)
    assert all(picture.jpeg for picture in pictures)
    for ending in ("geojson", "gpkg", "csv", "kmz"):
        export_hits(hits, pictures, tmp_path / f"hits.{ending}", NAMES[-1])
    written = json.loads((tmp_path / "hits.geojson").read_text(encoding="utf-8"))["features"]
    assert {one["properties"]["name"] for one in written} >= set(names)
    with zipfile.ZipFile(tmp_path / "hits.kmz") as kmz:
        assert len(list(fromstring(kmz.read("doc.kml")).iter("{http://www.opengis.net/kml/2.2}Placemark"))) == len(hits)
    found = search(archive, colour_bundle, red(), embed=no_texts)
    write_wall(tmp_path / "wall.html", "火", found, hits, pictures, archive)
    assert "图片 Genève" in (tmp_path / "wall.html").read_text(encoding="utf-8")


def test_a_source_that_was_moved_is_found_again_and_hides_nothing(
    fly_over: Fly, colour_bundle: Bundle, tmp_path: Path
) -> None:
    """FiftyOne 860, Immich 13182: one missing file hid the others, and a moved one was lost."""
    archive = Archive(tmp_path / "archive")
    archive.add(fly_over("first", [RED, RED]))
    archive.add(fly_over("second", [(250, 90, 30)]))
    (tmp_path / "moved").mkdir()
    (tmp_path / "sources" / "first").rename(tmp_path / "moved" / "first")
    hits = find(archive, colour_bundle)
    assert len(hits) == 3
    assert all(picture.jpeg for picture in pictures_of(archive, hits))  # the journal keeps small ones
    found = check(archive, search_in=tmp_path / "moved")
    assert [(one.problem, one.harmless) for one in found] == [("source moved", True)]
    assert relocate(archive, found) == 1
    assert check(archive) == []


def test_every_hit_is_on_one_page_only(fly_over: Fly, colour_bundle: Bundle, tmp_path: Path) -> None:
    """Immich 23883, 4199: a second page was never reached, or repeated the first."""
    from overflight.station.search.search import search as whole

    archive = Archive(tmp_path / "archive")
    archive.add(fly_over("many", [(250 - n, 30 + n, 30) for n in range(57)]))
    every = [hit.row for hit in whole(archive, colour_bundle, red(), embed=no_texts, most=100).hits]
    assert len(every) == len(set(every)) == 57
    pages: list[int] = []
    for page in range(1, 8):
        hits = whole(archive, colour_bundle, red(), embed=no_texts, most=10 * page).hits
        pages += [hit.row for hit in hits[10 * (page - 1) :]]
    assert pages == every


def test_a_search_without_hits_overwrites_the_files_of_an_older_one(tmp_path: Path) -> None:
    """A file that stayed was taken for the answer; and hits without a place are in the table."""
    hit = Hit(1, "f" * 16, "first", 7, 0, 0.4, 0.4, 99.0, number="ffffffff-7")
    for ending in ("geojson", "gpkg", "csv", "kmz"):
        path = tmp_path / f"hits.{ending}"
        path.write_bytes(b"of yesterday")
        assert export_hits([hit], [Picture(b"", "")], path, "red") == 1
        assert path.read_bytes() != b"of yesterday"
        if ending == "csv":
            (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            assert (row["flight"], row["finding"], row["lat"]) == ("first", "ffffffff-7", "")
        export_hits([], [], path, "red")
    with sqlite3.connect(tmp_path / "hits.gpkg") as package:
        assert package.execute("SELECT count(*) FROM hits").fetchone() == (0,)


def test_a_file_of_another_kind_is_refused_before_the_search() -> None:
    """An ending that names no format wrote nothing, and a wall of another kind was HTML under its name."""
    with pytest.raises(UsageError, match=r"hits.shp: ends in '.shp'; expected one of .geojson"):
        check_formats([Path("hits.csv"), Path("hits.shp")])
    with pytest.raises(UsageError, match=r"wall.jpg: ends in '.jpg'"):
        check_wall(Path("wall.jpg"))


def test_a_filter_that_can_pass_nothing_is_refused(archive: Archive, colour_bundle: Bundle) -> None:
    """A mistyped flight or an interval the wrong way round was answered with "not found"."""
    with pytest.raises(UsageError, match="--flight frist: not in this archive"):
        find(archive, colour_bundle, Filters(flights=("first", "frist")))
    with pytest.raises(UsageError, match="--height 120,20: expected LEAST,MOST"):
        Filters(heights_m=(120.0, 20.0))
    with pytest.raises(UsageError, match="--before: not later than --after"):
        Filters(after_utc_ns=2, before_utc_ns=1)
    found = search(archive, colour_bundle, red(), Filters(labels=("violin",)), embed=no_texts)
    assert answer_text(found) == "Nothing to search: no row passes the filters."


def test_a_decision_after_a_torn_line_is_kept(archive: Archive) -> None:
    """A power cut tore the last line; the next decision was written to its end and lost with it."""
    flight = archive.flights()[0].id[:8]
    mark(archive, f"{flight}-0", "confirmed", "ann")
    path = archive.directory / "review" / "ann.jsonl"
    path.write_bytes(path.read_bytes() + b'{"finding": "torn')
    mark(archive, f"{flight}-1", "rejected", "ann")
    assert [(one.number[-1], one.state) for one in findings(archive)] == [("0", "confirmed"), ("1", "rejected")]


def test_maps_of_the_wall_are_one_for_each_region(fly_over: Fly, colour_bundle: Bundle, tmp_path: Path) -> None:
    """Hits of two continents on one map would be two dots; numbers are those of the wall."""
    archive = Archive(tmp_path / "archive")
    archive.add(put(fly_over("fiji", [RED, RED]), square(179.9995, -17.0), square(-179.999, -17.0)))
    archive.add(put(fly_over("alps", [RED]), square(8.5, 47.0)))
    archive.add(fly_over("nowhere", [RED]))
    found = search(archive, colour_bundle, red(), embed=no_texts)
    write_wall(tmp_path / "wall.html", "red", found, found.hits, pictures_of(archive, found.hits), archive)
    page = (tmp_path / "wall.html").read_text(encoding="utf-8")
    assert page.count('class="map"') == 2
    assert page.count('class="event"') == 3
    assert "200 m" in page or "100 m" in page or "50 m" in page  # a scale of metres, not of half the earth


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text_does_not_end_the_flight(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """Label Studio 4874, PhotoPrism 252: one name in an old encoding stopped the import for good."""
    from overflight.runtime import Overflight
    from overflight.station.archive.sources import add_source

    stills = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    stills.mkdir()
    cv2 = pytest.importorskip("cv2")
    for name in (b"a.png", b"caf\xe9.png", b"z.png"):
        cv2.imwrite(str(tmp_path / "one.png"), np.full((48, 64, 3), RED[::-1], np.uint8))
        (tmp_path / "one.png").rename(stills / os.fsdecode(name))
    archive = Archive(tmp_path / "archive")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        flight, new = add_source(archive, stills, overflight)
    assert new
    assert flight.rows == 3
    found = search(archive, colour_bundle, red(), embed=no_texts)
    pictures = pictures_of(archive, found.hits)
    assert [bool(picture.jpeg) for picture in pictures] == [True] * 3
    write_wall(tmp_path / "wall.html", "red", found, found.hits, pictures, archive)
