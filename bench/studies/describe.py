"""How often the field "space" of a description is right on AID: python -m overflight.bench.studies.describe.

Needs ``../shared/data/aid_rsicd.zip``. The thirty scenes are mapped to the values that a person would accept. Prints
JSON: right, wrong and abstained at several least scores.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from overflight.export.shipped_labels import bank_of
from overflight.runtime.bank import LabelBank
from overflight.runtime.sources.image import decode_still
from overflight.station.describe.fields import groups_of
from overflight.station.ground.towers import image_tower, open_bundle

LEAST = (0.25, 0.1, 0.05, 0.02)
BUILT = ("dense city", "suburb")
ACCEPTED: dict[str, tuple[str, ...]] = {
    "Airport": ("transport facility",),
    "BareLand": ("open land", "desert or bare mountains"),
    "BaseballField": ("sports and leisure area",),
    "Beach": ("coast",),
    "Bridge": ("transport facility", "river landscape", "open water"),
    "Center": BUILT,
    "Church": BUILT,
    "Commercial": BUILT,
    "DenseResidential": BUILT,
    "Desert": ("desert or bare mountains",),
    "Farmland": ("cropland",),
    "Forest": ("woodland",),
    "Industrial": ("industrial area",),
    "Meadow": ("open land",),
    "MediumResidential": ("suburb", "scattered houses"),
    "Mountain": ("desert or bare mountains", "woodland"),
    "Park": ("sports and leisure area",),
    "Parking": ("transport facility",),
    "Playground": ("sports and leisure area",),
    "Pond": ("open water",),
    "Port": ("transport facility",),
    "RailwayStation": ("transport facility",),
    "Resort": ("sports and leisure area",),
    "River": ("river landscape",),
    "School": BUILT,
    "SparseResidential": ("scattered houses",),
    "Square": (*BUILT, "sports and leisure area"),
    "Stadium": ("sports and leisure area",),
    "StorageTanks": ("industrial area",),
    "Viaduct": ("transport facility",),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    bank = bank_of("description", bundle)
    archive = zipfile.ZipFile(given.data / "aid_rsicd.zip")
    rows = [row for row in map(json.loads, archive.read("captions.jsonl").decode().splitlines())
            if row["split"] == given.split]  # fmt: skip
    with image_tower(bundle) as embed:
        vectors = [embed([_read(archive, row["file"])])[0] for row in rows]
    found: dict[str, Any] = {"model": bundle.manifest.name, "split": given.split, "pictures": len(rows)}
    for least in LEAST:
        header = msgspec.structs.replace(bank.header, threshold=least)
        group = groups_of(LabelBank.make(header, bank.vectors))["space"]
        answers = [group.judge(vector).label for vector in vectors]
        right = sum(answer in ACCEPTED[row["scene"]] for answer, row in zip(answers, rows, strict=True) if answer)
        abstained = sum(answer is None for answer in answers)
        found[f"least score {least}"] = {"right": right, "wrong": len(rows) - right - abstained, "abstained": abstained}
    print(json.dumps(found, indent=1))


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ascontiguousarray(decode_still(archive.read(name), name)[:, :, ::-1])


if __name__ == "__main__":
    main()
