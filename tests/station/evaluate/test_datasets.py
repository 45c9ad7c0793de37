"""Data sets in every layout, made in miniature, and the ways in which copies of them go wrong.

Covers: station/evaluate/datasets.py, station/evaluate/adapters.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from overflight.runtime.errors import UsageError
from overflight.station.evaluate import adapters as module
from overflight.station.evaluate.adapters import Adapter, adapters, open_as, published
from overflight.station.evaluate.datasets import class_name, open_dataset


def fill(folder: Path, count: int = 5, suffix: str = ".png") -> Path:
    """Write small pictures."""
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}{suffix}"), np.full((4, 4, 3), 40 * number, np.uint8))
    return folder


def test_a_folder_for_each_class_is_split_as_remoteclip_does(tmp_path: Path) -> None:
    """The first 80 % by file name are train; hidden folders, hidden files and thumbnails are no pictures."""
    for name in ("BareLand", "river", ".cache", "__MACOSX"):
        fill(tmp_path / name)
    for name in (".DS_Store", "._0.png", "Thumbs.db"):
        (tmp_path / "river" / name).write_bytes(b"x")
    found = open_dataset(tmp_path)
    assert found.classes == ("bare land", "river")
    assert [one.path.name for one in found.of_split("test")] == ["4.png", "4.png"]
    assert len(found.of_split("train")) == 8 and found.left_out == 3


def test_official_splits_are_used_and_need_every_class(tmp_path: Path) -> None:
    """train/ and test/ by name; a class without pictures in one of them is refused."""
    for split in ("train", "test"):
        for name in ("a b", "c"):
            fill(tmp_path / split / name, 2)
    assert open_dataset(tmp_path).protocol == "official split"
    fill(tmp_path / "train" / "d", 1)
    with pytest.raises(UsageError, match="no pictures of this class"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"file": "0.png", "scene": "a", "split": "half", "captions": []}'])
def test_caption_lines_that_are_none_are_refused(line: str, tmp_path: Path) -> None:
    """In one line, with the file."""
    (tmp_path / "captions.jsonl").write_text(line)
    with pytest.raises(UsageError, match=r"captions\.jsonl: not caption lines"):
        open_dataset(tmp_path)


def test_class_names_come_by_folder_not_by_order(tmp_path: Path) -> None:
    """A list in another order than the folders' would give every class a wrong name."""
    for name in ("z", "a"):
        fill(tmp_path / name, 2)
    found = open_dataset(tmp_path, {"z": "zoo", "a": "airport"})
    assert [(found.classes[one.label], one.path.parent.name) for one in found.pictures][::2] == [
        ("airport", "a"), ("zoo", "z"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"missing \['z'\], unknown \['y'\]"):
        open_dataset(tmp_path, {"y": "zoo", "a": "airport"})
    with pytest.raises(UsageError, match="one class name"):
        open_dataset(tmp_path, {"z": "airport", "a": "airport"})


@pytest.mark.parametrize(
    ("folder", "name"),
    [("BareLand", "bare land"), ("bare_land", "bare land"), ("storage-tanks", "storage tanks"), ("SAROil", "sar oil"),
     ("harbor&port", "harbor&port"), ("停车场", "停车场")],
)  # fmt: skip
def test_folders_become_words(folder: str, name: str) -> None:
    """Capitals, underscores and hyphens divide words."""
    assert class_name(folder) == name


def record(name: str, split: str, **more: object) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": f" {name} {n} ."} for n in range(5)], **more}


@pytest.mark.parametrize("under", [".", "images"])
def test_rsicd_rsitmd_and_ucm_captions(tmp_path: Path, under: str) -> None:
    """Karpathy's layout, with the pictures next to the file or in images/."""
    fill(tmp_path / under, 3)
    path = tmp_path / "dataset_rsicd.json"
    path.write_text(json.dumps({"images": [record("0.png", "train"), record("1.png", "val"), record("2.png", "test")]}))
    for given in (path, tmp_path):
        found = open_dataset(given)
        (test,) = found.of_split("test")
        assert len(test.captions) == 5 and test.captions[0] == "2.png 0 ." and not found.classes


def test_missing_pictures_and_foreign_json_are_refused(tmp_path: Path) -> None:
    """A data set without its pictures is not one."""
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": [record("none.png", "test")]}))
    with pytest.raises(UsageError, match="1 of 1 pictures are missing"):
        open_dataset(path)
    for text in ('{"images": 3}', "[]", "{", '{"images": [{"filename": "a"}]}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="not a captions file"):
            open_dataset(path)


def test_change_captions_are_pairs(tmp_path: Path) -> None:
    """LEVIR-CC: images/SPLIT/A and B, and whether something changed."""
    for side in "AB":
        fill(tmp_path / "images" / "test" / side, 2)
    images = [record(f"{n}.png", "test", filepath="test", changeflag=n) for n in range(2)]
    (tmp_path / "LevirCCcaptions.json").write_text(json.dumps({"images": images}))
    found = open_dataset(tmp_path)
    assert found.layout == "LEVIR-CC pairs"
    assert [one.changed for one in found.pictures] == [False, True]
    assert found.pictures[0].after == tmp_path / "images" / "test" / "B" / "0.png"


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With those that are."""
    for name in ("a", "b"):
        fill(tmp_path / name)
    with pytest.raises(UsageError, match="'valid'; it has test, train"):
        open_dataset(tmp_path).of_split("valid")


def test_the_hash_covers_names_classes_and_bytes(tmp_path: Path) -> None:
    """Another picture or class name is another data set."""
    for name in ("a", "b"):
        fill(tmp_path / name)
    before = open_dataset(tmp_path).sha256("test")
    assert open_dataset(tmp_path).sha256("test") == before
    assert open_dataset(tmp_path, {"a": "x", "b": "y"}).sha256("test") != before
    (tmp_path / "a" / "4.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    assert open_dataset(tmp_path).sha256("test") != before


SIZES = {
    "rsi-cb128": 45, "rsi-cb256": 35, "whu-earth": 12, "eurosat": 10, "mlrsnet": 46, "patternnet": 38, "resisc45": 45,
    "aid": 30, "rs2800": 7, "optimal-31": 31, "rsc11": 11, "whu-rs19": 19,
}  # fmt: skip


def test_the_twelve_sets_have_their_classes() -> None:
    """In the order of RemoteCLIP's table."""
    assert {name: len(set(one.classes)) for name, one in adapters().items()} == SIZES


@pytest.mark.parametrize(
    ("model", "mean"),
    [("CLIP RN50", 50.60), ("RemoteCLIP RN50", 53.46), ("RemoteCLIP ViT-B-32", 62.41), ("CLIP ViT-L-14", 65.67),
     ("RemoteCLIP ViT-L-14", 71.30)],
)  # fmt: skip
def test_published_rows_have_their_published_mean(model: str, mean: float) -> None:
    """Each row of the table was remembered; its mean is the one that was read."""
    values = [row.value for name in SIZES for row in published("zero-shot", name) if row.model == model][:12]
    own = [
        row.value for name in SIZES for row in published("zero-shot", name)
        if row.model == model and row.source.startswith("RemoteCLIP's table")
    ]  # fmt: skip
    assert len(own) == 12 and values
    assert statistics.mean(own) == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize("name", SIZES)
def test_a_miniature_of_each_set_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By folders as people have them; one class too few, one too many or a picture less is refused with the address."""
    adapter = adapters()[name]
    small = Adapter(adapter.title, 5 * len(adapter.classes), adapter.where, adapter.classes)
    monkeypatch.setattr(module, "adapters", lambda: {name: small})
    prefix = "abcdefg" if name == "rs2800" else None
    for place, one in enumerate(adapter.classes):
        written = one.title().replace(" ", "") if place % 2 else one.replace(" ", "_")
        fill(tmp_path / (f"{prefix[place]}{one.title().replace(' ', '')}" if prefix else written), 5)
    found = open_as(name, tmp_path)
    assert set(found.classes) == set(adapter.classes)
    assert all(
        "".join(filter(str.isalnum, found.classes[one.label])) in class_name(one.path.parent.name).replace(" ", "")
        or not found.classes[one.label].isascii() or "&" in found.classes[one.label]
        for one in found.pictures
    )  # fmt: skip
    gone = min(tmp_path.iterdir())
    min(gone.iterdir()).unlink()
    with pytest.raises(UsageError, match=r"pictures, .* has"):
        open_as(name, tmp_path)
    gone.rename(tmp_path / "zzz unknown")
    with pytest.raises(UsageError, match=r"unknown class folders .*missing classes .*get it from"):
        open_as(name, tmp_path)


def test_classes_inside_folders_of_a_topic_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RSI-CB256 as it is published: transportation/airport_runway, water area/river."""
    small = Adapter("RSI-CB256", 15, "its address", ("airport runway", "highway", "river"))
    monkeypatch.setattr(module, "adapters", lambda: {"rsi-cb256": small})
    for folder in ("transportation/airport_runway", "transportation/highway", "water area/river"):
        fill(tmp_path / folder)
    found = open_as("rsi-cb256", tmp_path)
    assert found.classes == ("airport runway", "highway", "river")
    assert {one.path.parent.name for one in found.pictures if one.label == 2} == {"river"}


def test_an_unknown_set_is_a_usage_error(tmp_path: Path) -> None:
    """With the names that are known."""
    with pytest.raises(UsageError, match="expected one of rsi-cb128"):
        open_as("million-aid", tmp_path)
