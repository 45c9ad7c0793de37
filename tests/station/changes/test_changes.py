"""Two dates of one ground: grids of any size, scale and map system; registration; scores; files; questions; retrieval.

Covers: station/changes/pair.py station/changes/compare.py station/changes/register.py station/changes/score.py
station/changes/record.py station/changes/sentence.py station/changes/write.py station/changes/question.py
station/changes/retrieve.py station/commands/changes.py
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.station.changes.compare import Result, compare_pictures
from overflight.station.changes.pair import Grid
from overflight.station.changes.question import answer, choose, understand
from overflight.station.changes.register import register
from overflight.station.changes.retrieve import ChangeQuery, rank
from overflight.station.changes.score import fit_background, hysteresis, other_light
from overflight.station.changes.sentence import sentences
from overflight.station.changes.write import export_changes, heat_map, to_html
from overflight.station.ground.towers import image_tower
from overflight.station.schema import published

AT = (256_000.0, 4_107_000.0)


def ground(side: int = 400) -> Any:
    """Return a ground with edges at every scale, RGB."""
    random = np.random.default_rng(2)
    pixels = np.full((side, side, 3), (120, 110, 90), np.uint8)
    for _ in range(side // 2):
        x, y = random.integers(0, side, 2).tolist()
        size = random.integers(3, side // 12, 2).tolist()
        cv2.rectangle(pixels, (x, y), (x + size[0], y + size[1]), random.integers(20, 255, 3).tolist(), -1)
    return pixels


@pytest.fixture
def bank(colour_bank: LabelBank) -> LabelBank:
    header = colour_bank.header
    labels = tuple(msgspec.structs.replace(label, group="cover") for label in header.labels)
    return LabelBank.make(
        msgspec.structs.replace(header, labels=labels, exclusive=("cover",), threshold=0.3), colour_bank.vectors
    )


@pytest.fixture
def compare(colour_bundle: Bundle, bank: LabelBank) -> Any:
    pytest.importorskip("onnxruntime")

    def run(before: Path, after: Path, **given: Any) -> Result:
        with image_tower(colour_bundle) as embed:
            return compare_pictures(before, after, bank, colour_bundle.manifest, embed, **given)

    return run


@pytest.fixture
def changed(tmp_path: Path, geotiff: Any, compare: Any) -> Result:
    """Compare a red ground with itself, of which the north-west turned green."""
    before = np.clip(ground(128) * 0.1 + (225, 20, 20), 0, 255).astype(np.uint8)
    after = before.copy()
    after[:64, :64] = np.clip(ground(64) * 0.1 + (20, 225, 20), 0, 255)
    return compare(geotiff(tmp_path / "a.tif", before), geotiff(tmp_path / "b.tif", after), tile_px=32)  # type: ignore[no-any-return]


def test_what_changed_is_found_and_named(changed: Result) -> None:
    changes = changed.changes
    assert changes.changed_tiles == 4
    assert changes.flips == (("red", "green", 4),)
    assert changes.changed_area_m2 == pytest.approx(64 * 64 * 0.25)
    assert {(tile.row, tile.column) for tile in changes.tiles if tile.changed} == {
        (r, c) for r in range(2) for c in range(2)
    }
    english = " ".join(sentences(changes, "en"))
    assert "4 of 16 tiles (25 %)" in english
    assert "red became green (4)" in english
    assert "north-west" in english
    assert "西北部" in "".join(sentences(changes, "zh"))


def test_nothing_changed_is_said(tmp_path: Path, geotiff: Any, compare: Any) -> None:
    same = geotiff(tmp_path / "a.tif", ground(128))
    other = geotiff(tmp_path / "b.tif", ground(128))
    changes = compare(same, other, tile_px=32).changes
    assert (changes.changed_tiles, changes.registration.state) == (0, "exact")
    assert "No tile" in sentences(changes, "en")[0]
    with pytest.raises(UsageError, match="no tile changed"):
        export_changes(changes, tmp_path / "a.gpkg")


def test_one_colour_has_no_shift() -> None:
    """Phase correlation of a picture without edges answers half of its size; calm water is unverified, not shifted."""
    known = np.ones((256, 256), bool)
    flat = np.full((256, 256, 3), 127, np.uint8)
    mostly = flat.copy()
    mostly[:40, :40] = ground(60)[:40, :40]
    for before, after in ((flat, flat), (ground(256), flat), (mostly, mostly)):
        assert register(before, after, known, most_px=8, names="a and b").state == "unverified"


def test_a_small_picture_on_a_large_one_is_compared(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    """Either may be the first: the least overlap is of the smaller one's ground."""
    whole = ground(1400)
    large = opened(geotiff(tmp_path / "large.tif", whole))
    small = opened(geotiff(tmp_path / "small.tif", whole[500:600, 700:820].copy(), at=(AT[0] + 350.0, AT[1] - 250.0)))
    for grid in (Grid(large, small), Grid(small, large)):
        (a, known_a), (b, known_b) = grid.read(0, 0, grid.height, grid.width)
        both = known_a & known_b
        assert both.sum() == pytest.approx(100 * 120, rel=0.05)
        assert np.abs(a[both].astype(int) - b[both]).max() <= 2


@pytest.mark.parametrize(("right", "down"), [(0, 0), (6, 8), (-7, 3)])
def test_a_small_shift_is_measured_and_corrected(right: int, down: int) -> None:
    whole = ground(440)
    before, after = whole[20:420, 20:420], whole[20 - down : 420 - down, 20 - right : 420 - right]
    found = register(before, np.ascontiguousarray(after), np.ones((400, 400), bool), most_px=16, names="a and b")
    assert (found.right_px, found.down_px) == pytest.approx((right, down), abs=0.3)
    assert found.state == ("exact" if right == down == 0 else "corrected")


def test_a_large_shift_is_refused_with_its_number() -> None:
    whole = ground(460)
    known = np.ones((400, 400), bool)
    with pytest.raises(UsageError, match=r"shifted by (39|40|41)\.\d px"):
        register(whole[50:450, :400], np.ascontiguousarray(whole[10:410, :400]), known, most_px=16, names="a and b")


def test_a_turned_picture_is_refused_with_its_angle() -> None:
    whole = ground()
    turned = cv2.warpAffine(whole, cv2.getRotationMatrix2D((200, 200), 8, 1), (400, 400))
    with pytest.raises(UsageError, match=r"turned by -?[78]\.\d degrees"):
        register(whole, turned, np.ones((400, 400), bool), most_px=16, names="a and b")


def test_pictures_of_different_ground_are_unverified_not_refused() -> None:
    other = np.ascontiguousarray(np.random.default_rng(8).integers(0, 255, (400, 400, 3), np.uint8))
    found = register(ground(), other, np.ones((400, 400), bool), most_px=16, names="a and b")
    assert found.state == "unverified"


@pytest.mark.parametrize(
    "kind",
    ["same", "finer", "coarser", "other system", "degrees", "cut", "alpha border", "nodata border", "16 bit", "larger"],
)
def test_pairs_of_any_grid_meet(tmp_path: Path, geotiff: Any, opened: Any, kind: str) -> None:
    """Two products of one ground, as tools write them: after resampling both show the same place."""
    import pyproj

    whole = ground()
    before = geotiff(tmp_path / "a.tif", whole)
    pixels: Any = whole
    given: dict[str, Any] = {}
    match kind:
        case "finer":
            pixels, given = cv2.resize(whole, (800, 800), interpolation=cv2.INTER_LINEAR), {"gsd": 0.25}
        case "coarser":
            pixels, given = cv2.resize(whole, (200, 200), interpolation=cv2.INTER_AREA), {"gsd": 1.0}
        case "other system" | "degrees":
            epsg = 32610 if kind == "other system" else 4326
            pixels, given = _reprojected(whole, epsg, pyproj)
        case "cut":
            pixels, given = whole[100:300, 50:350], {"at": (AT[0] + 25.0, AT[1] - 50.0)}
        case "alpha border":
            pixels = np.dstack([whole, np.full(whole.shape[:2], 255, np.uint8)])
            pixels[:, :60] = 0
            given = {"extrasamples": ["unassalpha"]}
        case "nodata border":
            pixels = whole.copy()
            pixels[:, :60] = 255
            given = {"nodata": "255"}
        case "16 bit":
            pixels = whole.astype(np.uint16) * 40 + 500
        case "larger":
            pixels, given = np.pad(whole, ((30, 10), (20, 40), (0, 0))), {"at": (AT[0] - 10.0, AT[1] + 15.0)}
    grid = Grid(opened(before), opened(geotiff(tmp_path / "b.tif", np.ascontiguousarray(pixels), **given)))
    (a, known_a), (b, known_b) = grid.read(0, 0, grid.height, grid.width)
    both = known_a & known_b
    assert both.mean() > 0.7
    found = register(a, b, both, most_px=8, names="pair")
    assert found.state == "exact", found
    limit = 90 if kind == "16 bit" else 25
    assert np.abs(a[both].astype(int) - b[both]).mean() < limit
    if kind == "coarser":
        assert (grid.width, grid.height) == (200, 200)


def _reprojected(pixels: Any, epsg: int, pyproj: Any) -> tuple[Any, dict[str, Any]]:
    """Warp a ground from UTM 11 N into another system, north up, with zeros outside."""
    back = pyproj.Transformer.from_crs(epsg, 32611, always_xy=True).transform
    there = pyproj.Transformer.from_crs(32611, epsg, always_xy=True).transform
    corners = np.array([there(AT[0] + x, AT[1] - y) for x in (0, 200) for y in (0, 200)])
    west, north = corners[:, 0].min(), corners[:, 1].max()
    gsd = 0.5 if epsg != 4326 else 0.5 / 111_000
    width, height = (int((corners[:, axis].max() - corners[:, axis].min()) / gsd) for axis in (0, 1))
    x, y = np.meshgrid(west + (np.arange(width) + 0.5) * gsd, north - (np.arange(height) + 0.5) * gsd)
    east, up = back(x, y)
    columns, rows = (
        ((np.asarray(east) - AT[0]) / 0.5 - 0.5).astype(np.float32),
        ((AT[1] - np.asarray(up)) / 0.5 - 0.5).astype(np.float32),
    )
    return cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR), {"epsg": epsg, "gsd": gsd, "at": (west, north)}


def test_pairs_that_cannot_meet_are_refused(tmp_path: Path, geotiff: Any, opened: Any) -> None:
    placed = opened(geotiff(tmp_path / "a.tif", ground(100)))
    far = opened(geotiff(tmp_path / "b.tif", ground(100), at=(900_000.0, 5_000_000.0)))
    with pytest.raises(UsageError, match="0% of the smaller"):
        Grid(placed, far)
    cv2.imwrite(str(tmp_path / "c.png"), ground(100))
    cv2.imwrite(str(tmp_path / "d.png"), ground(100)[:60])
    with pytest.raises(UsageError, match="one has a georeference"):
        Grid(placed, opened(tmp_path / "c.png"))
    with pytest.raises(UsageError, match="100 x 60"):
        Grid(opened(tmp_path / "c.png"), opened(tmp_path / "d.png"))


def test_pictures_of_two_sizes_and_one_shape_meet(tmp_path: Path, opened: Any) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), ground())
    cv2.imwrite(str(tmp_path / "b.png"), cv2.resize(ground(), (200, 200), interpolation=cv2.INTER_AREA))
    grid = Grid(opened(tmp_path / "a.png"), opened(tmp_path / "b.png"))
    assert (grid.width, grid.height) == (200, 200)


def test_season_is_removed_and_change_stays() -> None:
    """A background that moves along one direction hides that direction, and no other."""
    random = np.random.default_rng(4)

    def unit(values: Any) -> Any:
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    base = unit(random.normal(size=(60, 32)))
    season = np.zeros(32)
    season[0] = 0.8
    pairs = [(base[i : i + 20], unit(base[i : i + 20] + season + random.normal(0, 0.01, (20, 32)))) for i in (0, 20)]
    background = fit_background(pairs)
    third = base[40:]
    assert (background.scores(third, unit(third + season)) < background.high).mean() > 0.8
    assert (background.scores(third, third[::-1]) > background.high).all()


def test_too_little_background_is_refused() -> None:
    few = np.eye(4, 8, dtype=np.float32)
    with pytest.raises(UsageError, match="at least 8"):
        fit_background([(few, few)])
    with pytest.raises(UsageError, match="too small to compare"):
        fit_background([(few, few)], origin="light")


def test_hysteresis_joins_neighbours_only() -> None:
    cells = [(0, column) for column in range(5)]
    scores = np.array([0.9, 0.5, 0.1, 0.5, 0.5])
    assert hysteresis(scores, cells, 0.8, 0.4).tolist() == [True, True, False, False, False]


def test_other_light_keeps_the_size() -> None:
    assert {one.shape for one in other_light(ground(64))} == {(64, 64, 3)}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_asks_for_nothing(changed: Result, language: Any) -> None:
    html = to_html(changed.changes, changed.compared, language).decode()
    assert html.count("data:image/jpeg") == 3
    assert "http" not in html
    assert "onclick" not in html
    assert " style=" not in html  # a content security policy may forbid it


def test_the_heat_map_marks_changed_tiles(changed: Result) -> None:
    drawn, plain = heat_map(changed.changes, changed.compared), changed.compared.views[1]
    assert np.abs(drawn[:64, :64].astype(int) - plain[:64, :64]).mean() > 20
    assert (drawn[64:, 64:] == plain[64:, 64:]).all()


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="GDAL is not installed")
def test_gdal_reads_the_changed_tiles(changed: Result, tmp_path: Path) -> None:
    export_changes(changed.changes, tmp_path / "c.gpkg")
    export_changes(changed.changes, tmp_path / "c.csv")
    said = subprocess.run(
        ["ogrinfo", "-al", "-so", str(tmp_path / "c.gpkg"), "changes"], capture_output=True, text=True, check=True
    )
    assert "Feature Count: 4" in said.stdout
    with sqlite3.connect(tmp_path / "c.gpkg") as connection:
        assert connection.execute("SELECT useAsDefault FROM layer_styles").fetchall() == [(1,)]
    assert (tmp_path / "c.csv").read_text().count("\n") == 17


def test_changes_validate_against_the_published_schema(changed: Result) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    value = json.loads(msgspec.json.encode(changed.changes))
    jsonschema.Draft202012Validator(json.loads(published("changes"))).validate(value)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("new buildings on bare soil", "bare soil", "buildings"),
        ("Forest became road.", "Forest", "road"),
        ("new houses", "", "houses"),
        ("demolished houses", "houses", ""),
        ("the barn disappeared", "the barn", ""),
        ("a solar field", "", "a solar field"),
    ],
)
def test_a_change_is_read_from_its_words(text: str, before: str, after: str) -> None:
    assert ChangeQuery.parse(text) == ChangeQuery(before, after)


def test_the_right_change_ranks_first() -> None:
    red, green, blue = np.eye(3, dtype=np.float32)
    before, after = np.stack([red, green, red]), np.stack([red, red, green])
    assert rank(ChangeQuery("red", "green"), np.stack([red, green]), before, after).argmax() == 2
    assert rank(ChangeQuery("", "red"), np.stack([red]), before, after).argmax() == 1
    assert rank(ChangeQuery("red", ""), np.stack([red]), before, after).argmax() == 2
    assert blue is not None


@pytest.mark.parametrize(
    ("question", "thing", "direction"),
    [
        ("Did the number of buildings grow?", "buildings", "grow"),
        ("has the area of the forest decreased?", "forest", "shrink"),
        ("Are there fewer trees?", "trees", "shrink"),
        ("are there new roads?", "roads", "grow"),
        ("were the old barns removed?", "old barns", "shrink"),
    ],
)
def test_questions_are_understood(question: str, thing: str, direction: str) -> None:
    assert understand(question) == (thing, direction)


def test_other_questions_are_refused() -> None:
    with pytest.raises(UsageError, match="--ask"):
        understand("why is the sky blue?")


def test_answers_may_say_cannot_tell() -> None:
    red, green, _ = np.eye(3, dtype=np.float32)

    def embed(texts: Any) -> Any:
        return np.stack([{"red": red, "green": green}[text] for text in texts])

    reds, greens = np.repeat(red[None], 20, axis=0), np.repeat(green[None], 20, axis=0)
    mixed = np.concatenate([reds[:10], greens[:10]])
    assert answer("did the red grow?", embed, greens, reds).answer == "yes"
    assert answer("did the red grow?", embed, reds, greens).answer == "no"
    assert answer("did the red grow?", embed, reds, reds).answer == "no"
    assert answer("did the red grow?", embed, mixed, mixed[::-1]).answer == "cannot tell"
    assert choose("what now?", ["red", "green"], embed, reds, greens).answer == "green"
    assert choose("what now?", ["red", "green"], embed, mixed, mixed[::-1]).answer == "cannot tell"
    with pytest.raises(UsageError, match="two or more"):
        choose("what now?", ["red"], embed, reds, greens)


def test_the_command_compares(tmp_path: Path, colour_bundle: Bundle, bank: LabelBank) -> None:
    from overflight.station.commands.changes import command

    bank.save(tmp_path / "bank.safetensors")
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), ground(128))
    given = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--labels", str(tmp_path / "bank.safetensors")]
    given += ["--bundle", str(colour_bundle.directory), "--tile", "32", "--json", "-o", str(tmp_path / "s.html")]
    done = CliRunner().invoke(command, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["changed_tiles"] == 0
    assert (tmp_path / "s.html").is_file()
