"""A change found by text in an archive: pairs of flights over one ground, filters, "not found", files.

Covers: station/search/changed.py station/search/change_report.py station/ground/footprints.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.station.archive import Archive
from overflight.station.changes.retrieve import ChangeQuery
from overflight.station.ground.footprints import overlap, same_tiles
from overflight.station.search.change_report import answer_text, export_changes, read_query, write_wall
from overflight.station.search.changed import search_changes
from overflight.station.search.filter_text import read_filters
from overflight.station.search.filters import Filters
from overflight.station.series.dates import read_date

RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)
SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def embed(texts: Any) -> Any:
    """Embed a colour as its direction, and a thing that is in no picture as noise."""
    random = np.random.default_rng(1)
    absent = random.normal(0, 0.2, (len(texts), 3))
    known = {"red": 0, "green": 1, "blue": 2}
    for row, text in enumerate(texts):
        if text in known:
            absent[row] = np.eye(3)[known[text]]
    return (absent / np.maximum(np.linalg.norm(absent, axis=1, keepdims=True), 1)).astype(np.float32)


@pytest.fixture
def archive(fly_over: Any, placed: Any, tmp_path: Path) -> Archive:
    """Keep three flights over six places, of which the third turned green and the fifth blue; and one elsewhere."""
    made = Archive(tmp_path / "archive")
    made.add(placed(fly_over("field-2023-05-01", [RED] * 6)))
    made.add(placed(fly_over("field-2024-05-01", [RED, RED, GREEN, RED, RED, RED])))
    made.add(placed(fly_over("field-2025-05-01", [RED, RED, GREEN, RED, BLUE, RED])))
    made.add(placed(fly_over("elsewhere-2025-06-01", [GREEN] * 2), lon_deg=9.5))
    return made


def test_the_ground_that_changed_is_found_once_with_both_dates(archive: Archive, colour_bundle: Bundle) -> None:
    found = search_changes(archive, colour_bundle, ChangeQuery("red", "green"), embed=embed)
    assert (found.flight_pairs, found.searched) == (3, 18)
    hit = found.hits[0]
    assert (hit.before.date, hit.after.date, hit.after.frame) in {
        ("2023-05-01", "2024-05-01", 2), ("2023-05-01", "2025-05-01", 2)
    }  # fmt: skip
    assert hit.grouped == 2
    assert hit.lon_deg == pytest.approx(8.50035)


def test_a_change_that_did_not_happen_is_not_found(archive: Archive, colour_bundle: Bundle) -> None:
    found = search_changes(archive, colour_bundle, ChangeQuery("blue", ""), embed=embed)
    assert found.hits == ()
    assert answer_text(found).startswith("Not found")
    assert found.best


def test_both_dates_pass_the_filters(archive: Archive, colour_bundle: Bundle) -> None:
    named = Filters(flights=("field-2024-05-01", "field-2025-05-01"))
    found = search_changes(archive, colour_bundle, ChangeQuery("", "blue"), named, embed=embed)
    assert [(hit.before.date, hit.after.date) for hit in found.hits] == [("2024-05-01", "2025-05-01")]
    east = Filters(circle=(47.00005, 8.50055, 3.0))
    found = search_changes(archive, colour_bundle, ChangeQuery("", "green"), east, embed=embed)
    assert found.hits == ()
    assert {hit.after.frame for hit in found.best} == {4}


def test_a_flight_without_a_date_is_left_out_and_named(
    fly_over: Any, placed: Any, colour_bundle: Bundle, tmp_path: Path
) -> None:
    made = Archive(tmp_path / "archive")
    made.add(placed(fly_over("old", [RED] * 4)))
    made.add(placed(fly_over("field-2024-05-01", [GREEN] * 4)))
    with pytest.raises(UsageError, match="1 without a date"):
        search_changes(made, colour_bundle, ChangeQuery("", "green"), embed=embed)
    dates = {"old": read_date("2023")}
    assert search_changes(made, colour_bundle, ChangeQuery("", "green"), embed=embed, dates=dates).hits
    with pytest.raises(UsageError, match="no such flight"):
        search_changes(made, colour_bundle, ChangeQuery("", "green"), embed=embed, dates={"new": read_date("2023")})


def test_dates_without_an_order_are_not_compared(
    fly_over: Any, placed: Any, colour_bundle: Bundle, tmp_path: Path
) -> None:
    made = Archive(tmp_path / "archive")
    made.add(placed(fly_over("a-2024", [RED] * 4)))
    made.add(placed(fly_over("b-2024-05", [GREEN] * 4)))
    with pytest.raises(UsageError, match="no two dated flights"):
        search_changes(made, colour_bundle, ChangeQuery("", "green"), embed=embed)


def test_a_mosaic_in_the_archive_has_the_place_of_its_map(
    geotiff: Any, colour_bundle: Bundle, colour_bank: Any, tmp_path: Path
) -> None:
    """Tiles of two mosaics are joined; GDAL's own arithmetic, by pyproj, agrees on the place."""
    pyproj: Any = pytest.importorskip("pyproj")
    from overflight.runtime import Overflight
    from overflight.runtime.tiles import Tiling
    from overflight.station.archive.sources import add_source

    before = np.full((128, 128, 3), RED, np.uint8)
    after = before.copy()
    after[:32, 96:] = GREEN
    made = Archive(tmp_path / "archive")
    with Overflight.load(colour_bundle, colour_bank, tiling=Tiling.parse("4x4")) as overflight:
        for year, pixels in ((2023, before), (2024, after)):
            add_source(made, geotiff(tmp_path / f"site-{year}.tif", pixels), overflight)
    hit = search_changes(made, colour_bundle, ChangeQuery("", "green"), embed=embed).hits[0]
    assert hit.after.tile == 4
    to_degrees = pyproj.Transformer.from_crs(32611, 4326, always_xy=True).transform
    assert (hit.lon_deg, hit.lat_deg) == pytest.approx(to_degrees(256_000 + 56, 4_107_000 - 8), abs=1e-7)


def test_hits_are_written_for_other_programs(archive: Archive, colour_bundle: Bundle, tmp_path: Path) -> None:
    found = search_changes(archive, colour_bundle, ChangeQuery("red", "green"), embed=embed)
    for ending in ("geojson", "gpkg", "csv"):
        export_changes(found.hits, tmp_path / f"hits.{ending}")
    written = json.loads((tmp_path / "hits.geojson").read_text())
    assert written["features"][0]["geometry"]["type"] == "Polygon"
    write_wall(archive, found, "red became green", tmp_path / "wall.html")
    page = (tmp_path / "wall.html").read_text()
    assert page.count("data:image/jpeg") == 2 * len(found.hits)
    assert "http" not in page
    with pytest.raises(UsageError, match="nothing was found"):
        export_changes((), tmp_path / "none.csv")
    with pytest.raises(UsageError, match="kmz"):
        export_changes(found.hits, tmp_path / "hits.kmz")


def test_the_command_refuses_what_does_not_belong_together(archive: Archive) -> None:
    from overflight.station.commands.search import command

    given = [str(archive.directory), "--changes", "new houses", "--not", "trees"]
    assert "--changes takes one text" in CliRunner().invoke(command, given).output
    assert (
        "belongs to --changes" in CliRunner().invoke(command, [str(archive.directory), "a", "--date", "f=2024"]).output
    )


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("森林变成道路", "forest", "road"),
        ("裸地上新建房屋", "bare land", "house"),
        ("新建停车场", "", "parking lot"),
        ("森林消失", "forest", ""),
    ],
)
def test_a_chinese_change_is_read_part_by_part(text: str, before: str, after: str) -> None:
    found = read_query(text)
    assert (found.before, found.after) == (before, after)


def test_the_largest_overlap_joins_two_tiles() -> None:
    def moved(by: float) -> Any:
        return tuple((x + by, y) for x, y in SQUARE)

    assert same_tiles([moved(0.6), moved(0.2), ()], [SQUARE, moved(5.0), ()]).tolist() == [1, -1, -1]
    assert overlap(SQUARE, moved(0.5)) == pytest.approx(1 / 3)


def test_filters_of_the_command_line_are_those_of_a_search() -> None:
    given = {"near": "47,8.5,100", "height": None, "inside": None, "after": "2024-01-01", "before": None}
    assert read_filters({**given, "flights": (), "labels": (), "kind": "tiles"}, None).kind == "tiles"
