"""Fine-tuning learns what the hold-out shows, writes a checkpoint that exports, and leaves the text tower alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")

from overflight.export.assemble import export  # noqa: E402
from overflight.models import checkpoint, finetune, towers  # noqa: E402
from overflight.models.finetune_data import list_pictures  # noqa: E402
from overflight.runtime.errors import UsageError  # noqa: E402
from overflight.station.evaluate.datasets import class_name  # noqa: E402

SMALL = towers.Shape(
    image_px=28, width=48, image_blocks=2, image_heads=3, text_width=32, text_blocks=1, text_heads=2, vocabulary=16000
)
PIECES = Path(__file__).parents[2] / "models" / "default" / "spiece.model"
COLOURS = {"BareLand": (150, 110, 60), "deep_water": (20, 50, 120)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small SigLIP of random weights, with decisions that belong to its own weights only."""
    folder = tmp_path_factory.mktemp("small") / "checkpoint"
    checkpoint.write(towers.build(SMALL, 0, pretrained=False), PIECES, folder)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two classes of rough pictures that differ in colour, and one file that is no picture."""
    folder, draw = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(30):
            coarse = np.clip(colour + draw.normal(0, 30, (6, 6, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((40, 40)).save(folder / name / f"{number}.png")
    (folder / "BareLand" / "torn.jpg").write_bytes(b"\xff\xd8torn")
    return folder


@pytest.mark.parametrize("lora", [0, 4])
def test_it_learns_and_exports(source: Path, scenes: Path, tmp_path: Path, lora: int) -> None:
    """After a few epochs the exported engine separates the classes; the text tower has not moved."""
    plan = finetune.Plan(blocks=2, lora=lora, epochs=6, batch=16, rate=3e-3, holdout=0.3)
    lines: list[str] = []
    before, after = finetune.finetune(source, scenes, tmp_path / "tuned", plan, report=lines.append)
    assert before.pictures == after.pictures == 18
    assert after.right == 18 > before.right
    assert "1 unreadable" in lines[0]
    bundle = export(tmp_path / "tuned", tmp_path / "bundle")
    assert bundle.manifest.width == 48
    old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "tuned"))
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed
    assert all(name.startswith("vision_model.") for name in changed)
    assert all(tensor.dtype == np.float16 for tensor in new.values())
    assert json.loads((tmp_path / "tuned" / "finetune.json").read_text())["after"]["right"] == 18


def test_captions_are_read_with_their_pictures(scenes: Path, tmp_path: Path) -> None:
    """A list of captions names its pictures relative to itself; a row without a caption is named."""
    row = {"file": "BareLand/0.png", "captions": ["dry ground", "dry ground", "brown soil"]}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps({"image": "x.png", "caption": "a"}))
    pictures, captioned = list_pictures(tmp_path)
    assert captioned
    assert [one.texts for one in pictures] == [("dry ground", "brown soil"), ("a",)]
    assert pictures[0].path == tmp_path / "BareLand/0.png"
    (tmp_path / "captions.jsonl").write_text('{"file": "x.png"}')
    with pytest.raises(UsageError, match=r"captions.jsonl:1: expected"):
        list_pictures(tmp_path)


def test_copies_of_held_out_pictures_are_not_trained_on(source: Path, tmp_path: Path) -> None:
    """Every picture twice: what is held out must not be in the training under another name."""
    from overflight.models.finetune_data import read_pictures
    from overflight.runtime.bundle import Resize

    draw = np.random.default_rng(1)
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for number in range(12):
            picture = Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8)).resize((64, 64))
            for copy in "ab":
                picture.save(tmp_path / name / f"{number}{copy}.png")
    pictures = read_pictures(list_pictures(tmp_path)[0], Resize(28, "bicubic", "squash"), 0.3, 0)
    assert pictures.left_out["like a held-out picture"] > 0
    seen = {pictures.frames[row].tobytes() for row in pictures.training}
    assert not seen & {pictures.frames[row].tobytes() for row in pictures.holdout}


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    """One class leaves nothing to choose from."""
    with pytest.raises(UsageError, match="a folder per class"):
        list_pictures(tmp_path)


def test_the_command_refuses_a_plan_without_sense(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2."""
    given = [str(source), str(tmp_path), "--out", str(tmp_path / "out")]
    assert finetune.main([*given, "--epochs", "0"]) == 2
    assert "--epochs 0: expected 1 or more" in capsys.readouterr().err
    assert finetune.main([*given, "--holdout", "1"]) == 2


@pytest.mark.parametrize("folder", ["DenseResidential", "dense_residential", "dense-residential "])
def test_a_folder_is_named_in_words(folder: str) -> None:
    """Data sets write their classes in many ways."""
    assert class_name(folder) == "dense residential"
