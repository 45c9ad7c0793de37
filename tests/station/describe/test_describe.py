"""Descriptions of pictures and flights: values, abstention, shares, areas, files in both languages.

Covers: station/describe/describe.py station/describe/fields.py station/describe/map.py station/describe/write.py
station/describe/record.py station/describe/composition.py station/schema.py station/words/words.py
station/commands/describe.py runtime/geofiles/style.py
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.export.shipped_labels import shipped_names, shipped_path
from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.geofiles.style import Style, qml
from overflight.station.describe import describe_flight, describe_picture
from overflight.station.describe.composition import compose
from overflight.station.describe.describe import Described
from overflight.station.describe.fields import groups_of, independent_labels
from overflight.station.describe.map import export_tiles
from overflight.station.describe.write import to_html, to_markdown
from overflight.station.ground.towers import image_tower
from overflight.station.schema import RECORDS, published, schema_of
from overflight.station.words import LANGUAGES, label_name
from overflight.station.words.words import _catalogue

ROOT = Path(__file__).parents[3]
HASHES = ("m" * 16, "b" * 16, "s" * 16)


@pytest.fixture
def described(tmp_path: Path, geotiff: Any, colour_bundle: Bundle, grouped_bank: LabelBank) -> Described:
    """Describe a mosaic that is three quarters red and one quarter green."""
    pytest.importorskip("onnxruntime")
    pixels = np.zeros((64, 128, 3), np.uint8) + np.array((250, 30, 30), np.uint8)
    pixels[:32, 64:] = (30, 250, 30)
    path = geotiff(tmp_path / "fields.tif", pixels)
    with image_tower(colour_bundle) as embed:
        return describe_picture(path, grouped_bank, colour_bundle.manifest, embed, tile_px=32)


def test_shares_and_areas_count_tiles(described: Described) -> None:
    red, green = described.description.cover
    assert (red.label, red.tiles, red.share) == ("red", 6, 0.75)
    assert (green.label, green.tiles) == ("green", 2)
    assert red.low < 0.75 < red.high
    assert red.area_m2 == pytest.approx(6 * 32 * 32 * 0.25)
    assert red.area_error_m2 is not None
    assert red.area_error_m2 > 0


def test_every_field_names_its_hashes(described: Described) -> None:
    description = described.description
    for field in description.fields:
        assert field.model == description.hashes.model[:16]
        assert field.source == description.hashes.source[:16]
        assert field.bank == ("" if field.dimension == "quality" else description.hashes.bank[:16])
        assert field.abstained == (field.value is None) == bool(field.reason)


def test_no_scale_no_area(tmp_path: Path, colour_bundle: Bundle, grouped_bank: LabelBank) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), (30, 30, 250), np.uint8))
    with image_tower(colour_bundle) as embed:
        found = describe_picture(tmp_path / "a.png", grouped_bank, colour_bundle.manifest, embed, tile_px=32)
    assert found.description.cover[0].area_m2 is None
    resolution = found.description.field("resolution")
    assert resolution is not None
    assert resolution.reason == "not measured"
    with pytest.raises(UsageError, match="no place"):
        export_tiles(found, tmp_path / "a.gpkg", "en")
    export_tiles(found, tmp_path / "a.csv", "en")
    assert (tmp_path / "a.csv").read_text().count("\n") == 5


@pytest.mark.parametrize(
    ("embedding", "value", "reason"),
    [
        ((1.0, -0.4, -0.4), "red", ""),
        ((0.6, 0.6, -0.5), None, "margin"),
        ((0.58, 0.58, 0.57), None, "background"),
        ((-0.6, -0.5, -0.62), None, "score"),
    ],
)
def test_a_group_abstains_and_says_why(
    grouped_bank: LabelBank, embedding: tuple[float, ...], value: str | None, reason: str
) -> None:
    vector = np.array(embedding, np.float32)
    judged = groups_of(grouped_bank)["cover"].judge(vector / np.linalg.norm(vector))
    assert (judged.label, judged.reason) == (value, reason)


def test_a_low_score_abstains(grouped_bank: LabelBank) -> None:
    strict = LabelBank.make(msgspec.structs.replace(grouped_bank.header, threshold=0.999), grouped_bank.vectors)
    judged = groups_of(strict)["cover"].judge(np.array((1.0, 0.0, 0.0), np.float32))
    assert (judged.label, judged.reason) == (None, "score")


def test_labels_without_an_exclusive_group_are_asked_one_by_one(colour_bank: LabelBank) -> None:
    header = colour_bank.header
    labels = tuple(
        msgspec.structs.replace(label, group=("warm", "cold", "cold")[row]) for row, label in enumerate(header.labels)
    )
    bank = LabelBank.make(msgspec.structs.replace(header, labels=labels), colour_bank.vectors)
    assert [name for name, _ in independent_labels(bank)] == ["warm", "cold", "cold"]
    assert groups_of(bank) == {}


def test_areas_need_every_tile() -> None:
    assert compose(["a", "b"], [10.0, None], 0.1, HASHES)[0].area_m2 is None
    assert compose([], [], 0.1, HASHES) == ()


def test_files_validate_against_the_published_schema(described: Described) -> None:
    """An independent validator accepts what is written, and refuses it with a field removed."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    value = json.loads(msgspec.json.encode(described.description))
    validator = jsonschema.Draft202012Validator(json.loads(published("description")))
    validator.validate(value)
    del value["fields"][0]["margin"]
    assert not validator.is_valid(value)


@pytest.mark.parametrize("name", RECORDS)
def test_the_published_schemas_are_those_of_the_records(name: str) -> None:
    assert published(name) == schema_of(name)
    assert (ROOT / "docs" / "schemas" / f"{name}.schema.json").read_bytes() == published(name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_in_both_languages_ask_for_nothing_else(described: Described, language: Any) -> None:
    html = to_html(described.description, language).decode()
    assert f'lang="{language}"' in html
    assert "http" not in html.replace("http://mrcc", "")
    markdown = to_markdown(described.description, language)
    assert ("红" not in markdown) or language == "zh"
    assert ("地物构成" in markdown) == (language == "zh")


def test_a_name_cannot_break_the_page(described: Described) -> None:
    evil = msgspec.structs.replace(described.description, source="</style><script>alert(1)</script>|x")
    assert "<script>alert(1)" not in to_html(evil, "en").decode()
    assert "<script>alert(1)" not in to_markdown(evil, "en")


def test_the_geopackage_has_a_style_that_qgis_applies(described: Described, tmp_path: Path) -> None:
    path = tmp_path / "tiles.gpkg"
    export_tiles(described, path, "zh")
    with sqlite3.connect(path) as connection:
        ((table, column, default, text),) = connection.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        assert (table, column, default) == ("tiles", "geom", 1)
        root = ElementTree.fromstring(text.partition("\n")[2])
        values = {row[0] for row in connection.execute("SELECT DISTINCT label FROM tiles")}
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert renderer.get("attr") == "label"
    categories = {one.get("value") for one in root.iter("category")}
    assert values <= categories
    assert {one.get("symbol") for one in root.iter("category")} == {one.get("name") for one in root.iter("symbol")}


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="GDAL is not installed")
@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
def test_gdal_reads_one_feature_a_tile(described: Described, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tiles.{ending}"
    export_tiles(described, path, "en")
    said = subprocess.run(["ogrinfo", "-al", "-so", str(path)], capture_output=True, text=True, check=True)
    assert "Feature Count: 8" in said.stdout
    assert not said.stderr


def test_a_style_of_ranges_is_whole() -> None:
    root = ElementTree.fromstring(
        qml(Style("score", ranges=((0, 0.5, "#ffffff"), (0.5, 1, "#ff0000")))).partition("\n")[2]
    )
    assert len(list(root.iter("range"))) == len(list(root.iter("symbol"))) == 2


def test_a_flight_is_described_from_its_embeddings(
    fly_over: Callable[..., Path], colour_bundle: Bundle, grouped_bank: LabelBank
) -> None:
    flight = fly_over("first", [(250, 30, 30)] * 3 + [(30, 250, 30)])
    found = describe_flight(flight, grouped_bank, colour_bundle.manifest).description
    assert (found.kind, found.frames) == ("flight", 4)
    assert [(one.label, one.tiles) for one in found.cover] == [("red", 3), ("green", 1)]
    with pytest.raises(UsageError, match="embeddings"):
        describe_flight(flight, grouped_bank, msgspec.structs.replace(colour_bundle.manifest, width=4))


def test_both_languages_are_complete() -> None:
    for key, texts in _catalogue().items():
        assert set(texts) == set(LANGUAGES), key
        assert sorted(part.split("}")[0] for part in texts["en"].split("{")[1:]) == sorted(
            part.split("}")[0] for part in texts["zh"].split("{")[1:]
        ), key


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_label_has_a_chinese_name(name: str) -> None:
    from overflight.export.label_file import read_label_file
    from overflight.export.prompts import read_templates

    for entry in read_label_file(shipped_path(name), read_templates("aerial")).entries:
        if not entry.background:
            assert label_name(entry.text, "zh") != entry.text, entry.text


def test_the_command_describes_with_a_bank(tmp_path: Path, colour_bundle: Bundle, grouped_bank: LabelBank) -> None:
    from overflight.station.commands.describe import command

    grouped_bank.save(tmp_path / "bank.safetensors")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), (30, 30, 250), np.uint8))
    given = [
        str(tmp_path / "a.png"),
        "--labels",
        str(tmp_path / "bank.safetensors"),
        "--bundle",
        str(colour_bundle.directory),
    ]
    done = CliRunner().invoke(command, [*given, "--json", "-o", str(tmp_path / "d.html")], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.output)["cover"][0]["label"] == "red"
    assert (tmp_path / "d.html").stat().st_size > 1000
