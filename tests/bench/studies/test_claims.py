"""The study of claims: its own fifty, captions of another scene as false ones, and how answers are counted.

Covers: bench/studies/claims.py
"""

from __future__ import annotations

import io
import json
import zipfile

from overflight.bench.studies import claims
from overflight.station.claims.verify import Verdict


def verdict(answer: str, percentile: float = 95.0, margin: float | None = 0.1) -> Verdict:
    """Return a verdict with an answer; what is behind it does not matter here."""
    import msgspec

    fields = {field.name: None for field in msgspec.structs.fields(Verdict)}
    return Verdict(**{**fields, "answer": answer, "percentile": percentile, "margin": margin})  # type: ignore[arg-type]


def test_the_claims_are_fifty_and_half_of_them_true() -> None:
    rows = json.loads(claims.CLAIMS.read_text(encoding="utf-8"))
    assert len(rows) == 50
    assert sum(row["true"] for row in rows) == 25
    assert len({(row["file"], row["claim"]) for row in rows}) == 50


def test_a_false_caption_is_of_another_scene() -> None:
    lines = [
        json.dumps({"file": f"images/{scene}/{n}.jpg", "scene": scene, "split": split, "captions": [f"{scene} {n}"]})
        for scene in ("Park", "Port")
        for split in ("valid", "test")
        for n in range(4)
    ]
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("captions.jsonl", "\n".join(lines))
    with zipfile.ZipFile(raw) as archive:
        found = claims.captions(archive, "valid", 6)
    assert len(found) == 12
    for row in found:
        same = row["file"].split("/")[1] == row["claim"].split()[0]
        assert same is row["true"]


def test_agreement_counts_the_decided_and_names_the_wrong() -> None:
    truths = (True, True, False, False, False)
    answers = ("supported", "cannot tell", "contradicted", "supported", "cannot tell")
    rows = [
        ({"file": f"{n}.jpg", "claim": "a claim", "true": truth}, verdict(said))
        for n, (truth, said) in enumerate(zip(truths, answers, strict=True))
    ]
    found = claims._agreement(rows, "model")
    assert found["agreement of the answered"] == "2 of 3"
    assert (found["answered"], found["abstained"]) == (3, 2)
    assert [row["file"] for row in found["wrong"]] == ["3.jpg"]
