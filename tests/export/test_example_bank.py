"""A bank from folders of pictures flies like any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.export.example_bank import bank_from_examples, parse_examples
from overflight.runtime import Overflight
from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")
RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)


def pictures(folder: Path, colour: tuple[int, int, int], count: int = 12) -> Path:
    folder.mkdir()
    random = np.random.default_rng(sum(colour))
    for number in range(count):
        pixels = np.clip(np.array(colour) + random.integers(-60, 61, 3) + random.integers(-9, 10, (40, 50, 3)), 0, 255)
        cv2.imwrite(str(folder / f"{number}.png"), pixels.astype(np.uint8)[:, :, ::-1])
    return folder


def test_labels_from_pictures_fly(colour_bundle: Bundle, tmp_path: Path) -> None:
    """Two labels and a background; the bank is saved, loaded, and names new pictures, or says unknown."""
    folders = {"warm": pictures(tmp_path / "warm", RED), "cold": pictures(tmp_path / "cold", BLUE)}
    made = bank_from_examples(colour_bundle, folders, [pictures(tmp_path / "rest", GREEN)], name="taught")
    made.bank.save(tmp_path / "taught.safetensors")
    bank = LabelBank.load(tmp_path / "taught.safetensors")
    assert [label.text for label in bank.header.labels] == ["warm", "cold"]
    assert all(len(label.examples) == 12 and label.logit_scale is not None for label in bank.header.labels)
    assert made.measured["warm"].auroc > 0.95
    with Overflight.load(colour_bundle, bank) as overflight:
        labels = [overflight.classify(np.full((40, 50, 3), colour, np.uint8)).label for colour in (RED, GREEN, BLUE)]
    assert labels == ["warm", None, "cold"]


def test_they_join_labels_made_from_texts(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """Each label has a scale and a bias of its own, so both sorts share a bank."""
    folders = {"warm": pictures(tmp_path / "warm", RED)}
    made = bank_from_examples(
        colour_bundle, folders, [pictures(tmp_path / "rest", GREEN)], name="both", text_bank=colour_bank
    )
    assert [label.text for label in made.bank.header.labels] == ["red", "green", "blue", "warm"]


def test_wrong_folders_are_refused(colour_bundle: Bundle, tmp_path: Path) -> None:
    """An option without a label, a folder that is none, one without pictures, and too few pictures."""
    with pytest.raises(UsageError, match="LABEL=FOLDER"):
        parse_examples([str(tmp_path)])
    with pytest.raises(UsageError, match="not a folder"):
        parse_examples(["fire=nowhere"])
    (tmp_path / "empty").mkdir()
    rest = pictures(tmp_path / "rest", GREEN)
    with pytest.raises(UsageError, match="no pictures"):
        bank_from_examples(colour_bundle, {"fire": tmp_path / "empty"}, [rest], name="x")
    with pytest.raises(UsageError, match="fire: 2 examples"):
        bank_from_examples(colour_bundle, {"fire": pictures(tmp_path / "few", RED, 2)}, [rest], name="x")
