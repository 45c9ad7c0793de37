"""How often claims about AID pictures are answered rightly: python -m overflight.bench.studies.claims.

Needs ``../shared/data/aid_rsicd.zip``. With ``--fit`` it shows 400 captions of valid pictures over limits; without, the
fifty claims of ``claims.json`` (half true, half false) about test pictures. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from overflight.export.encode import TextEncoder
from overflight.runtime.sources.image import decode_still
from overflight.station.claims import verify
from overflight.station.claims.verify import LEAST_PERCENTILE, MARGIN, MOST_PERCENTILE
from overflight.station.ground.towers import image_tower, open_bundle

CLAIMS = Path(__file__).with_name("claims.json")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--fit", action="store_true")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    archive = zipfile.ZipFile(given.data / "aid_rsicd.zip")
    claims = captions(archive, "valid", 200) if given.fit else json.loads(CLAIMS.read_text(encoding="utf-8"))
    pictures = sorted({claim["file"] for claim in claims})
    with image_tower(bundle) as embed:
        read = [np.ascontiguousarray(decode_still(archive.read(name), name)[:, :, ::-1]) for name in pictures]
        vectors = dict(zip(pictures, embed(read), strict=True))
    kept: dict[str, Any] = {}
    with TextEncoder(bundle) as encoder:

        def embed_texts(texts: Any) -> Any:
            new = [text for text in texts if text not in kept]
            if new:
                kept.update(zip(new, encoder.encode(new), strict=True))
            return np.stack([kept[text] for text in texts])

        answered = [(claim, verify(claim["claim"], vectors[claim["file"]], embed_texts)) for claim in claims]
    print(json.dumps(_limits(answered) if given.fit else _agreement(answered, bundle.manifest.name), indent=1))


def captions(archive: zipfile.ZipFile, split: str, count: int) -> list[dict[str, Any]]:
    """Return true and false claims: a picture's own caption, and one of a picture of another scene."""
    lines = archive.read("captions.jsonl").decode().splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == split]
    chosen = random.Random(3).sample(rows, count)  # noqa: S311 - a sample of pictures
    found = []
    for number, row in enumerate(chosen):
        other = next(one for one in chosen[number:] + chosen if one["scene"] != row["scene"])
        found.append({"file": row["file"], "claim": row["captions"][0], "true": True})
        found.append({"file": row["file"], "claim": other["captions"][0], "true": False})
    return found


def _limits(answered: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for truth in (True, False):
        rows = [verdict for claim, verdict in answered if claim["true"] is truth]
        margins = [one.margin for one in rows if one.margin is not None]
        levels = (1, 5, 10, 25, 50, 75, 90, 95, 99)
        found[f"{truth}: percentile"] = np.percentile([one.percentile for one in rows], levels).round(1).tolist()
        found[f"{truth}: margin"] = np.percentile(margins, levels).round(3).tolist()
        found[f"{truth}: answers"] = _count(rows)
    return found


def _agreement(answered: Any, model: str) -> dict[str, Any]:
    right = {True: "supported", False: "contradicted"}
    decided = [(claim, verdict) for claim, verdict in answered if verdict.answer != "cannot tell"]
    agreed = sum(verdict.answer == right[claim["true"]] for claim, verdict in decided)
    return {
        "model": model,
        "limits": [LEAST_PERCENTILE, MOST_PERCENTILE, MARGIN],
        "claims": len(answered),
        "answered": len(decided),
        "agreement of the answered": f"{agreed} of {len(decided)}",
        "abstained": len(answered) - len(decided),
        "true claims": _count([verdict for claim, verdict in answered if claim["true"]]),
        "false claims": _count([verdict for claim, verdict in answered if not claim["true"]]),
        "wrong": [
            {"file": claim["file"], "claim": claim["claim"], "true": claim["true"], "answer": verdict.answer}
            for claim, verdict in decided
            if verdict.answer != right[claim["true"]]
        ],
    }


def _count(verdicts: Any) -> dict[str, int]:
    answers = [verdict.answer for verdict in verdicts]
    return {answer: answers.count(answer) for answer in ("supported", "contradicted", "cannot tell")}


if __name__ == "__main__":
    main()
