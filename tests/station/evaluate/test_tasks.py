"""Every task on made-up pictures of which the answer is known, and the command around them.

Covers: station/evaluate/run.py, station/evaluate/classify.py, station/evaluate/counting.py, station/evaluate/table.py
Covers: station/evaluate/caption_scores.py, station/evaluate/corruptions.py, station/evaluate/boxes.py
Covers: station/evaluate/localise.py, station/evaluate/objects.py, station/evaluate/embedding.py
Covers: station/commands/evaluate.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.progress import unreported
from overflight.station.commands.evaluate import command
from overflight.station.evaluate import evaluate, open_dataset
from overflight.station.evaluate.boxes import (
    Box,
    Boxed,
    boxes_of_mask,
    captions_of,
    read_coco,
    read_yolo,
    without_copies,
)
from overflight.station.evaluate.caption_scores import caption_scores, tokenise
from overflight.station.evaluate.classify import few_shot, linear_probe, neighbours, zero_shot
from overflight.station.evaluate.corruptions import CORRUPTIONS, SCALES
from overflight.station.evaluate.counting import variants
from overflight.station.evaluate.embedding import Embeddings
from overflight.station.evaluate.objects import evaluate_objects, holds_boxes

COLOURS = {"red": (250, 40, 40), "green": (40, 250, 40), "blue": (40, 40, 250)}


def colour_of(text: str) -> NDArray[np.float32]:
    """Answer as a text tower would that knows three colours: the unit embedding that the colour bundle gives them."""
    for name, colour in COLOURS.items():
        if name in text.lower():
            centred = np.array(colour, np.float32) - 100
            return np.asarray(centred / np.linalg.norm(centred), np.float32)
    return np.full(3, -(3**-0.5), np.float32)


@pytest.fixture(autouse=True)
def text_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The colour bundle has no text tower; this one knows the colours' names."""
    monkeypatch.setattr(Embeddings, "texts", lambda self, texts: np.stack([colour_of(text) for text in texts]))


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Return a data set of three colours, ten noisy pictures each, with captions."""
    cv2 = pytest.importorskip("cv2")
    chance = np.random.default_rng(0)
    lines = []
    for name, colour in COLOURS.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(colour)[::-1] + chance.normal(0, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "set" / name / f"{number}.png"), pixels)
            split = "train" if number < 6 else "test"
            captions = [f"a {name} field.", f"it is {name}."]
            lines.append(
                json.dumps({"file": f"{name}/{number}.png", "scene": name, "split": split, "captions": captions})
            )
    (tmp_path / "set" / "captions.jsonl").write_text("\n".join(lines))
    return tmp_path / "set"


@pytest.mark.slow
def test_every_task_of_a_captioned_set(
    colours: Path, colour_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows its colours is right everywhere; every row has its protocol, and the table its hashes."""
    pytest.importorskip("sklearn")
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr("shutil.which", lambda name: None)  # METEOR starts a Java process
    found = evaluate(colour_bundle, open_dataset(colours), (), report=unreported, cache=tmp_path / "cache")
    value = {(one.task, one.measure): one.value for one in found.rows}
    tasks = [("zero-shot", "top-1"), ("linear-probe", "top-1"), ("knn", "top-1"), ("scale", "quarter crop")]
    for task, measure in [*tasks, ("few-shot", "top-1, 1 a class"), ("corruptions", "noise 0.05")]:
        assert value[task, measure] == 1.0
    assert value["open-set", "AUROC of the best cosine"] == 1.0
    assert value["retrieval", "T2I R@5"] == 1.0
    assert 0 < value["captions", "BLEU-1"] < 1
    assert all(one.protocol for one in found.rows) and len(found.dataset_sha256) == 64
    assert found.prompts[0] == "a satellite photo of blue"
    again = evaluate(colour_bundle, open_dataset(colours), (), report=unreported, cache=tmp_path / "cache")
    assert again.rows == found.rows


def test_a_task_that_does_not_fit_is_refused(colours: Path, colour_bundle: Bundle) -> None:
    """With those that do."""
    with pytest.raises(UsageError, match="no counting with this data set; it allows zero-shot"):
        evaluate(colour_bundle, open_dataset(colours), ["counting"], report=unreported)


def test_probes_and_neighbours_on_clusters() -> None:
    """Three well separated clusters; one mislabelled known picture is outvoted."""
    pytest.importorskip("sklearn")
    chance = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 12)
    known = np.eye(3, 8)[labels] + chance.normal(0, 0.05, (36, 8))
    known = (known / np.linalg.norm(known, axis=1, keepdims=True)).astype(np.float32)
    wrong = labels.copy()
    wrong[0] = 2
    assert neighbours(known[::2], wrong[::2], known[1::2], labels[1::2]).value == 1.0
    assert linear_probe(known, labels, known, labels)[0].value == 1.0
    assert list(few_shot(known, labels, known, labels, (1, 4, 64))) == [1, 4]
    assert zero_shot(known, np.eye(3, 8, dtype=np.float32), labels).samples == 36


def test_corruptions_are_the_same_every_time() -> None:
    """And change the picture; crops keep the middle."""
    pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name, change in CORRUPTIONS.items():
        assert np.array_equal(change(pixels), change(pixels)), name
        assert change(pixels).dtype == np.uint8 and not np.array_equal(change(pixels), pixels)
    assert np.array_equal(SCALES["half crop"](pixels), pixels[15:45, 20:60])


def test_caption_scores_equal_the_reference_called_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference implementation's own modules on the same words; an exact copy has BLEU and ROUGE-L of 1."""
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    monkeypatch.setattr("shutil.which", lambda name: None)  # METEOR starts a Java process
    wanted = {
        "a": ["a red car on a road", "one car drives"],
        "b": ["many planes at an airport", "planes near a terminal"],
    }
    found = caption_scores(wanted, {"a": "A red car, on a road.", "b": "Planes near a runway"})
    score, _ = cider.Cider().compute_score(wanted, {"a": ["a red car on a road"], "b": ["planes near a runway"]})
    assert found["CIDEr"] == pytest.approx(score)
    exact = caption_scores(wanted, {name: several[0] for name, several in wanted.items()})
    assert exact["BLEU-4"] == pytest.approx(1, abs=1e-6) and exact["ROUGE-L"] == pytest.approx(1)


def test_bleu_and_rouge_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic: "the the the …" has a clipped precision of 2/7 (Papineni et al., 2002, section 2.1)."""
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr("shutil.which", lambda name: None)
    wanted = {"a": ["The cat is on the mat.", "There is a cat on the mat."]}
    assert caption_scores(wanted, {"a": "the the the the the the the"})["BLEU-1"] == pytest.approx(2 / 7, abs=1e-6)
    # ROUGE-L of "the cat sat" against "the cat is on the mat": LCS 2, P 2/3, R 2/6, beta 1.2
    precision, recall = 2 / 3, 2 / 6
    by_hand = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    found = caption_scores({"a": ["the cat is on the mat"]}, {"a": "the cat sat"})["ROUGE-L"]
    assert found == pytest.approx(by_hand)
    assert tokenise("Don't STOP, at 2 o'clock!") == "don't stop at 2 o'clock"
    with pytest.raises(UsageError, match="have none or are unknown"):
        caption_scores(wanted, {"b": "x"})


def test_counting_replaces_the_first_number() -> None:
    """The word "someone" holds no number."""
    made = variants("There are Three planes and two cars next to someone.")
    assert made is not None
    assert made[1] == 3 and made[0][9] == "There are ten planes and two cars next to someone."
    assert variants("Someone has planes.") is None


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """Return YOLO pictures: a red square at the top left of a dark picture, and two of them."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "boxes"
    folder.mkdir()
    for number, lefts in enumerate(([0], [0, 80])):
        pixels = np.full((96, 128, 3), 20, np.uint8)
        for left in lefts:
            pixels[:32, left : left + 32] = (30, 30, 250)
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])
        text = "\n".join(f"0 {(left + 16) / 128} {16 / 96} {32 / 128} {32 / 96}" for left in lefts)
        (folder / f"{number}.txt").write_text(text + "\n\n")
    return folder


def test_localisation_finds_what_lies_in_its_tiles(boxed: Path, colour_bundle: Bundle) -> None:
    """Tiles of 16 pixels cover the squares exactly; the whole picture overlaps far less."""
    assert holds_boxes(boxed)
    found = evaluate_objects(colour_bundle, boxed, (), thing="red", templates="remoteclip", report=unreported)
    value = {one.measure: one.value for one in found.rows}
    assert value["MIoU"] > 0.9 and value["CIoU"] > 0.9
    assert value["CIoU of the whole picture"] == pytest.approx(3 * 32 * 32 / (2 * 96 * 128))
    assert value["accuracy"] in {0.0, 0.5, 1.0}
    (boxed / "classes.txt").write_text("car\ntruck\n")
    with pytest.raises(UsageError, match="choose the class"):
        evaluate_objects(colour_bundle, boxed, (), thing="boat", templates="remoteclip", report=unreported)


def test_coco_boxes_and_polygons(tmp_path: Path) -> None:
    """A polygon without a box gets the rectangle around it; another JSON file is refused."""
    path = tmp_path / "instances.json"
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 3, "name": "ship"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 3, "segmentation": [[10, 5, 20, 5, 15, 25]]},
        ],
    }
    path.write_text(json.dumps(data))
    (one,) = read_coco(path, tmp_path)
    assert one.boxes == (Box("ship", 1, 2, 3, 4), Box("ship", 10, 5, 10, 20))
    assert holds_boxes(path)
    path.write_text('{"annotations": [{"image_id": 9}]}')
    with pytest.raises(UsageError, match="not a COCO instances file"):
        read_coco(path, tmp_path)


def test_boxes_become_captions() -> None:
    """Five, by place and by number; from ten on there are many."""
    ships = tuple(Box("ship", 10.0 * n, 0, 5, 5) for n in range(12))
    texts = captions_of(Boxed(Path("a"), 200, 100, (Box("plane", 90, 40, 20, 20), *ships)))
    assert texts[0] == "One plane in the middle of the picture."
    assert texts[2] == "There are many ships and one plane in the picture."
    assert texts[3] == "There is one plane and many ships in the picture."
    assert len(texts) == 5 and captions_of(Boxed(Path("a"), 9, 9, ()))[0].startswith("There is nothing")


def test_masks_become_boxes() -> None:
    """One for each connected part, diagonal neighbours together; single pixels are noise."""
    pytest.importorskip("cv2")
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 3:9] = mask[5:7, 9:12] = mask[10:14, 20:24] = 1
    mask[18, 1] = 1
    mask[0:4, 25:30] = 2
    found = boxes_of_mask(mask, {1: "building", 2: "pond"})
    assert found == [Box("building", 3, 2, 9, 5), Box("building", 20, 10, 4, 4), Box("pond", 25, 0, 5, 4)]


def test_near_copies_are_left_out(imagery: Path, tmp_path: Path) -> None:
    """A picture written again at another quality and size is a copy; its neighbour in flight is not."""
    cv2 = pytest.importorskip("cv2")
    first, second = sorted((imagery / "uav_brighton_beach").glob("DJI*.JPG"))[:2]
    copy = tmp_path / "copy.jpg"
    cv2.imwrite(str(copy), cv2.resize(cv2.imread(str(first)), (400, 225), interpolation=cv2.INTER_AREA))
    assert without_copies([copy, second], [first]) == ([second], [(copy, first)])
    assert without_copies([first, copy], within=False)[0] == [first, copy]
    assert without_copies([first, copy])[0] == [first]


def test_the_command_prints_one_table(colours: Path, colour_bundle: Bundle, tmp_path: Path) -> None:
    """Markdown or JSON, and into a file."""
    given = [str(colour_bundle.directory), str(colours), "--task", "zero-shot", "--threads", "1"]
    done = CliRunner().invoke(command, [*given, "--out", str(tmp_path / "t.json")])
    assert done.exit_code == 0, done.output
    assert "| zero-shot | top-1 | 1.000 |" in done.stdout
    assert json.loads((tmp_path / "t.json").read_text())["split_protocol"] == "official split"
    wrong = CliRunner().invoke(command, [*given, "--out", str(tmp_path / "t.xls")])
    assert isinstance(wrong.exception, UsageError)
    captions = tmp_path / "c.jsonl"
    captions.write_text('{"file": 1}')
    wrong = CliRunner().invoke(command, [*given, "--captions", str(captions)])
    assert isinstance(wrong.exception, UsageError)


@pytest.mark.parametrize(
    "line", ["red", "0 0.5 0.5 0.1", "red 0.5 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1", "7 0.5 0.5 0.1 0.1", "0 nan 0.5 1 1",
             "0 50 50 10 10"],
)  # fmt: skip
def test_a_line_that_is_no_box_is_named(boxed: Path, line: str) -> None:
    """A class of -1 is not the last one, and pixels are not shares."""
    path = next(boxed.glob("*.txt"))
    path.write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(UsageError, match=rf"{path.name}: line 2: not a box"):
        read_yolo(boxed, ["red"])


def test_yolo_files_of_several_classes(boxed: Path) -> None:
    """By number."""
    assert {box.name for one in read_yolo(boxed, ["red"]) for box in one.boxes} == {"red"}
