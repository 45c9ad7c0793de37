"""One ground over five dates, with a known answer: when each tile changed, the curves, the files, the refusals.

Covers: station/series/follow.py station/series/pictures.py station/series/flights.py station/series/series.py
station/series/record.py station/series/write.py station/series/chart.py station/commands/series.py
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.station.changes.score import Background
from overflight.station.ground.towers import image_tower
from overflight.station.schema import published
from overflight.station.series.dates import read_date
from overflight.station.series.follow import Stack, follow, intervals, steps_of
from overflight.station.series.series import Result, follow_sources
from overflight.station.series.write import export_series, sentences, to_html

RED, GREEN, BLUE = np.eye(3, dtype=np.float32)
NONE = Background(np.empty((0, 3), np.float32), 0.2, 0.1, "pairs", 100)


@pytest.fixture
def run(colour_bundle: Bundle, bank: LabelBank) -> Any:
    pytest.importorskip("onnxruntime")

    def make(paths: list[Path], **given: Any) -> Result:
        with image_tower(colour_bundle) as embed:
            return follow_sources(paths, bank, colour_bundle.manifest, embed, tile_px=32, **given)

    return make


@pytest.fixture
def result(run: Any, five_dates: list[Path]) -> Result:
    return run(five_dates)  # type: ignore[no-any-return]


def followed(*tiles: list[Any]) -> Any:
    """Follow tiles that are given as embeddings by date; None is not shown."""
    known = np.array([[vector is not None for vector in tile] for tile in tiles]).T
    vectors = np.array([[np.zeros(3) if vector is None else vector for vector in tile] for tile in tiles])
    stack = Stack(vectors.transpose(1, 0, 2).astype(np.float32), known, None)
    steps = steps_of(stack, NONE)
    return follow(stack, steps, NONE), intervals(steps, NONE.high, 0.01)


def test_the_interval_of_a_change_and_whether_it_lasted() -> None:
    tiles, _ = followed([RED, RED, GREEN, GREEN], [RED, BLUE, RED, RED], [RED, RED, RED, GREEN], [RED] * 4)
    assert [(one.state, one.changed_from, one.changed_to) for one in tiles] == [
        ("lasting", 1, 2),
        ("returned", 0, 1),
        ("newest", 2, 3),
        ("unchanged", None, None),
    ]


def test_a_date_that_does_not_show_a_tile_widens_its_interval() -> None:
    tiles, counted = followed([RED, None, None, GREEN, GREEN], [None, RED, None, None, None], [None] * 5)
    assert [(one.state, one.changed_from, one.changed_to) for one in tiles] == [
        ("lasting", 0, 3),
        ("unknown", None, None),
        ("unknown", None, None),
    ]
    assert [(one.compared, one.changed) for one in counted] == [(0, 0), (0, 0), (0, 0), (1, 0)]
    assert not any(one.evident for one in counted)


def test_a_slow_change_has_no_date() -> None:
    angles = np.linspace(0, np.pi / 2, 6)
    slow = [np.array([np.cos(angle), np.sin(angle), 0], np.float32) for angle in angles]
    tiles, _ = followed(slow)
    assert tiles[0] == tiles[0]._replace(state="gradual", changed_from=0, changed_to=5)


def test_what_chance_explains_is_not_evident() -> None:
    """Of 400 tiles 4 are false alarms at 1 %; 20 are not."""
    few = [[RED, GREEN, GREEN]] * 4 + [[RED] * 3] * 396
    many = [[RED, GREEN, GREEN]] * 20 + [[RED] * 3] * 380
    assert [one.evident for one in followed(*few)[1]] == [False, False]
    assert [one.evident for one in followed(*many)[1]] == [True, False]


def test_an_interval_rests_on_tiles_above_the_limit() -> None:
    """The limit is the background's, whatever share of tiles changed; a step below it never makes one evident."""
    above, below = (
        np.array([np.cos(angle), np.sin(angle), 0], np.float32) for angle in (np.arccos(0.7), np.arccos(0.85))
    )
    assert [one.evident for one in followed(*[[RED, above, above, RED]] * 16)[1]] == [True, False, True]
    assert [one.evident for one in followed(*[[RED, below, below]] * 16)[1]] == [False, False]


def test_the_made_up_ground_has_its_known_answer(result: Result) -> None:
    series = result.series
    states = {
        (t.row, t.column): (t.state, t.changed_from, t.changed_to) for t in series.tiles if t.state != "unchanged"
    }
    assert states == {
        (0, 0): ("lasting", 1, 2),
        (0, 1): ("lasting", 1, 2),
        (3, 3): ("returned", 0, 1),
        (2, 0): ("newest", 3, 4),
    }
    assert [one.changed for one in series.intervals] == [1, 3, 0, 1]
    assert [one.evident for one in series.intervals] == [False, True, False, False]
    curves = {curve.label: curve for curve in series.curves}
    assert [point.tiles for point in curves["green"].points] == [0, 0, 2, 2, 3]
    assert (curves["green"].first_seen, curves["green"].last_seen) == (2, 4)
    assert (curves["blue"].first_seen, curves["blue"].last_seen) == (1, 1)
    assert curves["unknown"].first_seen is None


def test_sources_are_put_in_order(run: Any, five_dates: list[Path], result: Result) -> None:
    assert run(five_dates[::-1]).series == result.series


def test_missing_ground_is_not_taken_for_a_change(run: Any, paint: Any, geotiff: Any, tmp_path: Path) -> None:
    hole = paint({})
    hole[:32, :32] = 0
    grounds = [paint({}), hole, paint({})]
    paths = [
        geotiff(tmp_path / f"{year}.tif", ground) for year, ground in zip((2020, 2021, 2022), grounds, strict=True)
    ]
    series = run(paths).series
    assert [date.missing_tiles for date in series.dates] == [0, 1, 0]
    assert series.tiles[0].labels == ("red", None, "red")
    assert {tile.state for tile in series.tiles} == {"unchanged"}


def test_mosaics_of_other_scale_and_extent_are_laid_on_one_grid(
    run: Any, paint: Any, geotiff: Any, tmp_path: Path
) -> None:
    turned = {(row, column): (20, 225, 20) for row in range(2) for column in range(4)}
    coarse = np.ascontiguousarray(paint({})[::2, ::2])
    paths = [
        geotiff(tmp_path / "2020.tif", paint({})),
        geotiff(tmp_path / "2021.tif", coarse, gsd=1.0),
        geotiff(tmp_path / "2022.tif", paint(turned)[:, :96]),
    ]
    series = run(paths).series
    assert (series.rows, series.columns) == (2, 2)
    assert [(tile.state, tile.changed_to) for tile in series.tiles] == [("newest", 2)] * 2 + [("unchanged", None)] * 2


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_asks_for_nothing(result: Result, language: Any) -> None:
    html = to_html(result, language).decode()
    assert html.count("data:image/jpeg") == 5
    assert html.count("<svg") >= 2
    assert "http" not in html
    assert " style=" not in html
    wanted = {"en": ("Between 2021-05-01 and 2022-05-01 3 of 16", "or later"), "zh": ("之间", "或更晚", "变化时间")}
    assert all(text in html for text in wanted[language])


def test_the_drawings_are_well_formed_and_in_their_frame(result: Result) -> None:
    from overflight.station.series.chart import HEIGHT, WIDTH, bars, plot

    for drawing in (plot(result.series), bars(result.series)):
        read = ElementTree.fromstring(ElementTree.tostring(drawing))
        points = [pair.split(",") for line in read.iter("polyline") for pair in line.attrib["points"].split()]
        assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)
        assert all(float(box.attrib["height"]) >= 0 for box in read.iter("rect"))


def test_sentences_abstain(run: Any, paint: Any, geotiff: Any, tmp_path: Path) -> None:
    paths = [geotiff(tmp_path / f"{year}.tif", paint({})) for year in (2020, 2021, 2022)]
    still = run(paths).series
    assert sentences(still, "en")[0].startswith("No interval")
    apart = msgspec.structs.replace(
        still, intervals=tuple(msgspec.structs.replace(one, compared=0) for one in still.intervals)
    )
    assert "cannot tell" in sentences(apart, "en")[0]


def test_the_series_validates_against_its_schema(result: Result) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    value = json.loads(msgspec.json.encode(result.series))
    jsonschema.Draft202012Validator(json.loads(published("series"))).validate(value)
    value["tiles"][0]["state"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(published("series"))).validate(value)


def test_the_table_has_a_row_for_each_tile_and_date(result: Result, tmp_path: Path) -> None:
    export_series(result.series, tmp_path / "s.csv")
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 16 * 5
    assert {(row["date"], row["label_zh"]) for row in rows if row["row"] == row["column"] == "0"} >= {
        ("2020-05-01", "红色"),
        ("2022-05-01", "绿色"),
    }


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="GDAL is not installed")
def test_gdal_reads_when_each_tile_changed(result: Result, tmp_path: Path) -> None:
    export_series(result.series, tmp_path / "s.gpkg")
    said = subprocess.run(
        ["ogrinfo", "-al", str(tmp_path / "s.gpkg"), "changes"], capture_output=True, text=True, check=True
    ).stdout
    assert "Feature Count: 4" in said
    assert said.count("changed_to (String) = 2022-05-01") == 2


def test_what_cannot_be_followed_is_refused(run: Any, five_dates: list[Path], tmp_path: Path, paint: Any) -> None:
    import cv2

    with pytest.raises(UsageError, match="overflight changes"):
        run(five_dates[:2])
    with pytest.raises(UsageError, match="2 dates for 5 sources"):
        run(five_dates, dates=[read_date("2020"), read_date("2021")])
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), paint({}))
    with pytest.raises(UsageError, match="no date"):
        run([tmp_path / f"{name}.png" for name in "abc"])


def test_flights_are_followed_by_their_footprints(
    fly_over: Any, placed: Any, colour_bundle: Bundle, colour_bank: LabelBank
) -> None:
    red, green = (250, 30, 30), (30, 250, 30)
    names = {"f-2022-06": [red] * 12, "f-2023-06": [red] * 12, "f-2024-06": [red] * 4 + [green] + [red] * 7}
    flights = [placed(fly_over(name, colours)) for name, colours in names.items()]
    with image_tower(colour_bundle) as embed:
        series = follow_sources(flights, colour_bank, colour_bundle.manifest, embed).series
        assert [tile.changed_to for tile in series.tiles] == [None] * 4 + [2] + [None] * 7
        assert series.kind == "flights"
        with pytest.raises(UsageError, match="--tile"):
            follow_sources(flights, colour_bank, colour_bundle.manifest, embed, tile_px=64)


def test_the_command_follows_and_writes(
    five_dates: list[Path], colour_bundle: Bundle, bank: LabelBank, tmp_path: Path
) -> None:
    from overflight.station.commands.series import command

    bank.save(tmp_path / "bank.safetensors")
    given = [*map(str, five_dates), "--labels", str(tmp_path / "bank.safetensors"), "--tile", "32"]
    given += ["--bundle", str(colour_bundle.directory), "-o", str(tmp_path / "s.html"), "-o", str(tmp_path / "s.json")]
    done = CliRunner().invoke(command, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "2021-05-01 to 2022-05-01: 3 of 16 tiles" in done.output
    assert json.loads((tmp_path / "s.json").read_text())["kind"] == "pictures"
    assert (tmp_path / "s.html").is_file()
