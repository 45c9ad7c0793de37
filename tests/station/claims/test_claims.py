"""Claims: counter-sentences by rules, decisions at limits, absence, and boxes of detectors.

Covers: station/claims/counters.py station/claims/verify.py station/commands/verify_claim.py station/regions.py
station/commands/regions.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from overflight.station.claims import counter_sentences, verify
from overflight.station.claims.counters import negated
from overflight.station.claims.verify import decide, panel_sentences
from overflight.station.regions import label_boxes, read_boxes
from overflight.station.schema import published


@pytest.mark.parametrize(
    ("claim", "counter", "rule"),
    [
        ("a flooded field", "a dry field", "antonym"),
        ("many houses", "no houses", "antonym"),
        ("a river between trees", "a lake between trees", "other thing"),
        ("two rivers meet", "two lakes meet", "other thing"),
        ("white roofs next to green fields", "green roofs next to white fields", "swapped attribute"),
    ],
)
def test_rules_make_counter_sentences(claim: str, counter: str, rule: str) -> None:
    assert (counter, rule) in [(one.text, one.rule) for one in counter_sentences(claim)]


def test_a_claim_without_a_rule_has_no_counter() -> None:
    assert counter_sentences("something unheard of") == []


@pytest.mark.parametrize(
    ("claim", "thing"),
    [("There is no bridge.", "bridge"), ("no ships", "ships"), ("without any trees", "trees"), ("a bridge", None)],
)
def test_absence_is_asked_by_what_it_denies(claim: str, thing: str | None) -> None:
    assert negated(claim) == thing


@pytest.mark.parametrize(
    ("cosine", "counter", "percentile", "answer"),
    [
        (0.5, 0.1, 99.0, "supported"),
        (0.5, None, 99.0, "supported"),
        (0.5, 0.9, 99.0, "cannot tell"),
        (0.1, 0.9, 70.0, "contradicted"),
        (0.1, 0.0, 20.0, "contradicted"),
        (0.1, 0.0, 70.0, "cannot tell"),
    ],
)
def test_limits_decide(cosine: float, counter: float | None, percentile: float, answer: str) -> None:
    assert decide(cosine, counter, percentile) == answer


def embedder(fits: dict[str, float]) -> Any:
    """Return texts' embeddings in a plane, by their cosine with the picture (1, 0); 0.3 for the panel."""

    def embed(texts: Sequence[str]) -> Any:
        cosines = np.array([fits.get(text, 0.3) for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)

    return embed


PICTURE = np.array((1.0, 0.0), np.float32)


def test_a_claim_is_supported_contradicted_or_neither() -> None:
    assert verify("a river", PICTURE, embedder({"a river": 0.9})).answer == "supported"
    assert verify("a river", PICTURE, embedder({"a river": 0.1})).answer == "contradicted"
    found = verify("a river", PICTURE, embedder({"a river": 0.8, "a road": 0.95}), against=["a road"])
    assert found.answer == "cannot tell"
    assert (found.counters[0].text, found.counters[0].rule) == ("a road", "given")
    assert found.margin == pytest.approx(-0.15, abs=1e-3)


def test_absence_is_never_supported() -> None:
    assert verify("there is no river", PICTURE, embedder({"river": 0.1})).answer == "cannot tell"
    assert verify("there is no river", PICTURE, embedder({"river": 0.9})).answer == "contradicted"


def test_an_empty_claim_is_refused() -> None:
    with pytest.raises(UsageError, match="sentence"):
        verify("  ", PICTURE, embedder({}))


@pytest.mark.parametrize("given", ["", "  ", "a  river"])
def test_a_counter_sentence_that_counters_nothing_is_refused(given: str) -> None:
    """Against itself a claim would always be "cannot tell"."""
    with pytest.raises(UsageError, match="other than the claim"):
        verify("a river", PICTURE, embedder({"a river": 0.9}), against=["a road", given])


def test_verdicts_validate_against_the_published_schema() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    value = json.loads(msgspec.json.encode(verify("a river", PICTURE, embedder({}))))
    jsonschema.Draft202012Validator(json.loads(published("claim"))).validate(value)


def test_the_panel_is_of_distinct_sentences() -> None:
    panel = panel_sentences()
    assert len(set(panel)) == len(panel) > 50


@pytest.mark.slow
def test_the_command_answers_with_the_default_model(tmp_path: Path) -> None:
    from overflight.station.commands.verify_claim import command

    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), (60, 120, 60), np.uint8))
    done = CliRunner().invoke(command, [str(tmp_path / "a.png"), "a green meadow", "--json"], catch_exceptions=False)
    assert json.loads(done.output)["answer"] in {"supported", "contradicted", "cannot tell"}


def write_coco(folder: Path, boxes: list[Any], **more: Any) -> Path:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, :100], picture[:, 100:] = (30, 30, 250), (30, 250, 30)
    cv2.imwrite(str(folder / "a.png"), picture)
    annotations = [
        {"id": n, "image_id": 1, "category_id": 7, "bbox": box, "segmentation": []} for n, box in enumerate(boxes)
    ]
    file = {"images": [{"id": 1, "file_name": "a.png", "width": 200}], "annotations": annotations, **more}
    (folder / "boxes.json").write_text(json.dumps(file))
    return folder / "boxes.json"


def mean_colour(pictures: Any) -> Any:
    means = np.array([picture.reshape(-1, 3).mean(axis=0) - 100 for picture in pictures], np.float32)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_boxes_of_a_detector_are_labelled(tmp_path: Path, colour_bank: LabelBank) -> None:
    boxes = [[10, 10, 60, 60], [120, 10, 60, 60], [10, 10, 2, 2], [900, 900, 50, 50]]
    file = read_boxes(write_coco(tmp_path, boxes, categories=[{"id": 7, "name": "thing"}]))
    (box, *others) = file.annotations
    file = msgspec.structs.replace(file, annotations=(box, *others, msgspec.structs.replace(box, image_id=2)))
    found = label_boxes(file, tmp_path, colour_bank, mean_colour)
    names = {one["id"]: one["name"] for one in found["categories"]}
    assert [names[one["category_id"]] for one in found["annotations"]] == ["red", "green"]
    assert found["annotations"][0]["detected"]["category_id"] == 7
    assert found["info"]["too_small_or_outside"] == 2
    assert found["info"]["without_picture"] == 1


@pytest.mark.parametrize("number", [1.0, "a-picture"])
def test_ids_as_other_tools_write_them(tmp_path: Path, colour_bank: LabelBank, number: Any) -> None:
    """Whole numbers as floats, and pictures by name; what has no box is counted."""
    path = write_coco(tmp_path, [[10, 10, 60, 60], [], [1, 2]])
    value = json.loads(path.read_text())
    value["images"][0]["id"] = number
    value["annotations"] = [{**one, "image_id": number} for one in value["annotations"]]
    del value["annotations"][1]["bbox"]
    path.write_text(json.dumps(value))
    found = label_boxes(read_boxes(path), tmp_path, colour_bank, mean_colour)
    assert [one["image_id"] for one in found["annotations"]] == [number]
    assert (found["info"]["without_box"], found["info"]["without_picture"]) == (2, 0)


def test_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"boxes": []}')
    with pytest.raises(UsageError, match="COCO"):
        read_boxes(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('[{"image_id": 1, "bbox": [0, 0, 9, 9]}]')
    with pytest.raises(UsageError, match="name the one picture"):
        read_boxes(tmp_path / "b.json")
    assert read_boxes(tmp_path / "b.json", tmp_path / "a.png").images[0].id == 1


def test_the_regions_command_writes_coco(tmp_path: Path, colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    from overflight.station.commands.regions import command

    colour_bank.save(tmp_path / "bank.safetensors")
    boxes = write_coco(tmp_path, [[10, 10, 60, 60]])
    given = [str(boxes), "--labels", str(tmp_path / "bank.safetensors"), "--bundle", str(colour_bundle.directory)]
    done = CliRunner().invoke(command, [*given, "-o", str(tmp_path / "out.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "out.json").read_text())["annotations"]) == 1
