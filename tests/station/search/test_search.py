"""Search: what is found, what is not, and how hits are filtered, grouped and exported.

Covers: station/commands/search.py, station/search/cutoff.py, station/search/dictionary.py, station/search/export.py,
station/search/filters.py, station/search/matrix.py, station/search/report.py, station/search/terms.py,
station/search/unlike.py, station/search/wall.py.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING
from xml.etree.ElementTree import fromstring

import msgspec
import numpy as np
import pytest

from overflight.runtime.errors import UsageError
from overflight.station.archive import Archive
from overflight.station.search import Filters, Terms, search
from overflight.station.search.cutoff import background_texts
from overflight.station.search.dictionary import translate
from overflight.station.search.export import export_hits
from overflight.station.search.filters import inside
from overflight.station.search.ranking import Hit
from overflight.station.search.search import search_unlike
from overflight.station.search.wall import Picture, answer_text, contact_sheet, pictures_of, write_wall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

NONE = np.empty((0, 3), np.float32)


def unit(*colour: float) -> NDArray[np.float32]:
    vector = np.array(colour, np.float32) - 100
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


RED, GREEN, BLUE, BLACK = unit(250, 30, 30), unit(30, 250, 30), unit(30, 30, 250), unit(0, 0, 0)


def absent(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed background texts near black, which no flight shows."""
    random = np.random.default_rng(0)
    vectors = BLACK + random.normal(0, 0.2, (len(texts), 3)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def texts(*vectors: NDArray[np.float32], unwanted: NDArray[np.float32] = NONE) -> Terms:
    return Terms(np.stack(vectors), NONE, unwanted)


def test_what_is_there_is_found_and_what_is_not_is_not(archive: Archive, colour_bundle: Bundle) -> None:
    """Red is in both flights; a colour that nothing shows is "not found", with the measured false-alarm rate."""
    found = search(archive, colour_bundle, texts(RED), embed=absent)
    assert {(hit.flight_name, hit.frame) for hit in found.hits} == {("first", 0), ("second", 1)}
    assert found.searched == 5
    assert found.hits[0].percentile >= 60
    nothing = search(archive, colour_bundle, texts(BLACK), embed=absent)
    assert nothing.hits == ()
    assert nothing.best
    assert nothing.cutoff is not None
    assert nothing.false_alarm is not None
    assert "Not found" in answer_text(nothing)
    ranked = msgspec.structs.replace(nothing, hits=nothing.best)  # what --rank shows: pictures, but nothing was found
    assert "Not found" in answer_text(ranked)
    assert nothing.held_out == len(background_texts()) // 2


def test_unwanted_terms_push_their_rows_down(archive: Archive, colour_bundle: Bundle) -> None:
    """Between red and green without unwanted terms; green alone is last when it is unwanted."""
    both = RED + GREEN
    both /= np.linalg.norm(both)
    plain = search(archive, colour_bundle, texts(both), embed=absent)
    without = search(archive, colour_bundle, texts(both, unwanted=GREEN[None]), embed=absent)
    assert {hit.label for hit in plain.best[:3]} == {"red", "green"}
    assert [hit.label for hit in without.best[:2]] == ["red", "red"]


def test_pictures_rank_without_a_cut_off(archive: Archive, colour_bundle: Bundle) -> None:
    """A picture always finds something, and the answer says that it only ranks."""
    found = search(archive, colour_bundle, Terms(NONE, BLUE[None], NONE), embed=absent)
    assert found.hits[0].label == "blue"
    assert found.cutoff is None
    assert "only rank" in answer_text(found)


def test_filters_pass_what_they_should_and_count_what_they_cannot_judge(
    archive: Archive, colour_bundle: Bundle
) -> None:
    """By flight and label; stills without a place cannot pass a condition on the place, and are counted."""
    by_flight = search(archive, colour_bundle, texts(RED), Filters(flights=("second",)), embed=absent)
    assert {hit.flight_name for hit in by_flight.best} == {"second"}
    by_label = search(archive, colour_bundle, texts(RED), Filters(labels=("green",)), embed=absent)
    assert {hit.label for hit in by_label.best} == {"green"}
    nowhere = search(archive, colour_bundle, texts(RED), Filters(circle=(47.0, 8.0, 100.0)), embed=absent)
    assert (nowhere.searched, nowhere.unknown, nowhere.best) == (0, 5, ())


def test_a_flight_of_another_tower_is_not_searched(archive: Archive, colour_bundle: Bundle) -> None:
    """Its embeddings mean something else; with no flight of the tower left, the error names what is there."""
    manifest = msgspec.structs.replace(colour_bundle.manifest, tower="d" * 64)
    other = type(colour_bundle)(colour_bundle.directory, manifest, "e" * 64)
    with pytest.raises(UsageError, match="mean-colour"):
        search(archive, other, texts(RED), embed=absent)
    with closing(sqlite3.connect(archive.index)) as connection, connection:
        connection.execute("UPDATE flights SET tower = ? WHERE name = 'second'", ("d" * 64,))
    found = search(archive, colour_bundle, texts(RED), embed=absent)
    assert ({hit.flight_name for hit in found.hits}, found.other_towers) == ({"first"}, 1)


def test_what_differs_from_a_reference_is_found(
    fly_over: Callable[..., Path], colour_bundle: Bundle, tmp_path: Path
) -> None:
    """Blue among reds and greens; the reference's own spread sets the cut-off."""
    reds = [(250 - n % 5 * 9, 30 + n % 7 * 9, 30) for n in range(30)]
    archive = Archive(tmp_path / "archive")
    archive.add(fly_over("usual", reds))
    archive.add(fly_over("today", [*reds[:4], (30, 30, 250), *reds[4:8]]))
    found = search_unlike(archive, colour_bundle, ["usual"])
    assert [(hit.flight_name, hit.frame) for hit in found.hits] == [("today", 4)]
    with pytest.raises(UsageError, match="not all are flights"):
        search_unlike(archive, colour_bundle, ["none"])


def test_nothing_to_search_for_is_refused() -> None:
    """A search needs a text or a picture."""
    with pytest.raises(UsageError, match="nothing to search for"):
        Terms(NONE, NONE, RED[None])


@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        ("停车场", "parking lot"),
        ("被淹的道路", "flooded road"),
        ("红色屋顶", "red roof"),
        ("违法填湖", "illegal lake filling"),
        ("海滩", "beach"),
        ("一艘搁浅的渔船", "stranded fishing boat"),
        ("冒浓烟的厂房", "thick smoke factory building"),
        ("中学", "middle school"),  # 中 alone is a particle
        ("马路", "road"),  # not a horse and a road
        ("正在燃烧的垃圾堆", "burning garbage heap"),
    ],
)
def test_chinese_terms_are_translated(chinese: str, english: str) -> None:
    """Longest term first, particles dropped."""
    assert translate(chinese) == english


def test_an_unknown_chinese_word_is_refused_by_name() -> None:
    """The text tower would read it as nothing."""
    with pytest.raises(UsageError, match="no translation for 龙"):
        translate("红色的龙")
    with pytest.raises(UsageError, match="no translation for 没"):  # an embedding does not negate; --not does
        translate("没有水的湖")


def test_every_term_of_the_dictionary_is_one_pair() -> None:
    """A term twice, or without its English, would be read as something else."""
    from importlib import resources

    text = (resources.files("overflight.station.search") / "dictionary.tsv").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert all(len(pair) == 2 and pair[1].isascii() and pair[1].strip() == pair[1] != "" for pair in pairs)
    assert len({chinese for chinese, _ in pairs}) == len(pairs) >= 600


def test_a_point_in_a_polygon() -> None:
    """A ring of any direction, with a point on neither side."""
    ring = ((0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0))
    assert inside(ring, 1, 1)
    assert inside(ring[::-1], 1, 1)
    assert not inside(ring, 3, 1)


def hits() -> list[Hit]:
    placed = Hit(1, "f" * 16, "<first> & co", 7, 2, 0.4, 0.4, 99.0, 100.0, label="=cmd()", lat_deg=47.0, lon_deg=8.5)
    placed = msgspec.structs.replace(placed, error_m=3.0, utc_ns=1_777_629_600_000_000_000)
    return [placed, Hit(2, "f" * 16, "first", 8, 0, 0.3, 0.3, 98.0)]


def test_hits_become_files_that_other_programs_read(tmp_path: Path) -> None:
    """GeoJSON, GeoPackage, CSV and KMZ; a hit without a place is counted, markup in a name does no harm."""
    pictures = [Picture(b"\xff\xd8jpeg", ""), Picture(b"", "no picture kept")]
    for name in ("a.geojson", "a.gpkg", "a.csv", "a.kmz"):
        assert export_hits(hits(), pictures, tmp_path / name, "red roof") == 1
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"]["flight"] == "<first> & co"
    assert (tmp_path / "a.gpkg").read_bytes()[:6] == b"SQLite"
    row, without = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert row["label"] == "'=cmd()"
    assert (without["frame"], without["lat"], without["wkt"]) == ("8", "", "")
    with zipfile.ZipFile(tmp_path / "a.kmz") as kmz:
        assert kmz.namelist() == ["doc.kml", "files/1.jpg"]
        document = fromstring(kmz.read("doc.kml"))
    (coordinates,) = [one.text for one in document.iter("{http://www.opengis.net/kml/2.2}coordinates")]
    assert coordinates == "8.5000000,47.0000000"


def test_the_wall_shows_the_pictures(archive: Archive, colour_bundle: Bundle, tmp_path: Path) -> None:
    """A page and a sheet with a picture for each hit, made from the archive."""
    found = search(archive, colour_bundle, texts(RED), embed=absent)
    pictures = pictures_of(archive, found.hits)
    assert all(picture.jpeg for picture in pictures)
    write_wall(tmp_path / "wall.html", "red", found, found.hits, pictures, archive)
    assert (tmp_path / "wall.html").read_text().count("data:image/jpeg") == 2
    assert contact_sheet("red", found, found.hits, pictures).shape[2] == 3
    write_wall(tmp_path / "wall.png", "red", found, found.hits, pictures, archive)
    assert (tmp_path / "wall.png").read_bytes()[:4] == b"\x89PNG"
