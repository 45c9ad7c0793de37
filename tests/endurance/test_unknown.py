"""Unknowns: scenes that the bank does not name are separated from those that it does, on the test split of AID.

Needs the imagery next to the checkout and the default model's bundle (``OVERFLIGHT_ENDURANCE_BUNDLE`` names another).
The tower may have seen such scenes in training; what is unknown here is their names to the bank.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import default_bundle
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.evaluation.thresholds import Example, fit_examples

cv2 = pytest.importorskip("cv2")
BUNDLE = Path(os.environ.get("OVERFLIGHT_ENDURANCE_BUNDLE") or default_bundle())
EXAMPLES = 10  # labelled frames per scene, of the validation split
NAMES = {"BareLand": "bare land", "BaseballField": "baseball field", "Center": "city centre with large buildings",
         "Commercial": "commercial area", "DenseResidential": "dense residential area", "Industrial": "industrial area",
         "MediumResidential": "medium residential area", "Parking": "parking lot", "RailwayStation": "railway station",
         "SparseResidential": "sparse residential area", "StorageTanks": "storage tanks"}  # fmt: skip


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """The chance that a known picture scores above an unknown one, ties half."""
    both = np.concatenate([known, unknown])
    ranks = np.empty(len(both))
    ranks[np.argsort(both, kind="stable")] = np.arange(1, len(both) + 1)
    for value in np.unique(both):
        ranks[both == value] = ranks[both == value].mean()
    return float((ranks[: len(known)].sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown)))


def fpr95(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """The share of unknown pictures that pass where 95 % of the known ones are kept."""
    return float((unknown >= np.quantile(known, 0.05)).mean())


@pytest.mark.slow
@pytest.mark.data
def test_scenes_that_the_bank_does_not_name_are_told_apart(imagery: Path) -> None:
    """Every fifth of the thirty scenes is left out; thresholds come from ten labelled validation pictures per scene."""
    if not (BUNDLE / "manifest.json").is_file():
        pytest.skip(f"no bundle at {BUNDLE}; make it with: make bundle")
    archive = zipfile.ZipFile(imagery / "aid_rsicd.zip")
    rows = [json.loads(line) for line in io.TextIOWrapper(archive.open("captions.jsonl"))]
    scenes = sorted({row["scene"] for row in rows})
    left_out = set(scenes[2::5])
    with Overflight.load(BUNDLE) as overflight:
        whole = overflight.bank

        def embed(row: dict[str, str]) -> NDArray[np.float32]:
            pixels = cv2.imdecode(np.frombuffer(archive.read(row["file"]), np.uint8), cv2.IMREAD_COLOR)
            unit: NDArray[np.float32] = overflight.embed([np.ascontiguousarray(pixels[:, :, ::-1])])[0]
            return unit

        test = [(row["scene"], embed(row)) for row in rows if row["split"] == "test"]
        valid = {
            scene: [row for row in rows if row["split"] in {"val", "valid"} and row["scene"] == scene]
            for scene in scenes
        }
        examples = [
            Example(embed(row), frozenset({name(scene)}) if scene not in left_out else frozenset())
            for scene in scenes
            if scene not in left_out
            for row in valid[scene][:EXAMPLES]
        ]
    archive.close()
    kept_rows = [i for i, label in enumerate(whole.header.labels) if label.text not in {name(s) for s in left_out}]
    assert len(kept_rows) == len(whole) - len(left_out)
    header = msgspec.structs.replace(whole.header, labels=tuple(whole.header.labels[i] for i in kept_rows))
    bank = LabelBank.make(header, whole.vectors[kept_rows])
    cosines = np.stack([bank.vectors @ vector for _, vector in test])
    unknown = np.array([scene in left_out for scene, _ in test])
    logits = cosines * np.exp(header.logit_scale)
    top = np.sort(logits, axis=1)
    peak = top[:, -1:]
    measures = {
        "best score": peak[:, 0],
        "lead over the second": top[:, -1] - top[:, -2],
        "softmax share": 1 / np.exp(logits - peak).sum(axis=1),
    }
    print(
        f"\n{(~unknown).sum()} known and {unknown.sum()} unknown test pictures; left out: {', '.join(sorted(left_out))}"
    )
    for title, values in measures.items():
        print(
            f"{title:22} AUROC {auroc(values[~unknown], values[unknown]):.3f}  "
            f"FPR95 {fpr95(values[~unknown], values[unknown]):.3f}"
        )
    fitted, _ = fit_examples(bank, examples)
    for title, used in (("without thresholds", bank), ("fitted thresholds", fitted)):
        matcher, decider = Matcher(used), Decider(used)
        answers = [decider.decide(matcher.match(vector)).label for _, vector in test]
        right = np.mean(
            [answer == name(scene) for answer, (scene, _) in zip(answers, test, strict=True) if scene not in left_out]
        )
        rejected = np.mean([answer is None for answer, lost in zip(answers, unknown, strict=True) if lost])
        silent = np.mean([answer is None for answer, lost in zip(answers, unknown, strict=True) if not lost])
        print(
            f"{title:22} known named rightly {right:.3f}, known called unknown {silent:.3f}, "
            f"unknown rejected {rejected:.3f}"
        )
    assert auroc(measures["best score"][~unknown], measures["best score"][unknown]) > 0.6


def name(scene: str) -> str:
    return NAMES.get(scene, scene.lower())
