"""Fit the default model's default decisions: a threshold for any label, a background for pictures without a view.

Both are fitted on validation pictures and reported on others, and end in ``models/default/decisions.json``, which
export copies into the bundle. Run it after a training, with a bundle of the new weights:

    python -m overflight.models.decisions ../shared/data models/bundle models/default/decisions.json
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from overflight.export.default_decisions import SCHEMA, BackgroundVector, DefaultDecisions
from overflight.export.labels import compile_bank
from overflight.models.nothing import KINDS, make
from overflight.models.scenes import name_scene
from overflight.runtime.bundle import Bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.engines import open_reference
from overflight.runtime.overflight import embed
from overflight.runtime.sources import open_source
from overflight.runtime.sources.image import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overflight.runtime.frame import Frame

HERE = Path(__file__).parent
EVERY = 3  # of the validation and test pictures: 685 of AID's 2,054
FITTED, REPORTED = 24, 12  # made-up pictures of each kind
VIDEO_EVERY = 15
PENALTY = 1e-4  # of the probe; 1e-3 misses half of the kinds, see models/README.md
SHARPNESS = 10.0  # the probe's logit must outrank any label's, which end at about 5
MARGIN = 0.3  # of the probe, on the side of pictures that show ground

LABELS = {
    "center": "city centre with large buildings",
    "commercial": "commercial area",
    "dense residential": "dense residential area",
    "industrial": "industrial area",
    "medium residential": "medium residential area",
    "parking": "parking lot",
    "sparse residential": "sparse residential area",
}
"""The labels of models/aerial.toml for the scenes of AID that have another name."""

Vectors = NDArray[np.float32]


def embed_all(data: Path, bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """Embed AID's held-out splits, the other ground imagery, and made-up pictures without a view."""
    engine = open_reference(bundle)

    def run(pictures: Iterable[Frame | NDArray[np.uint8]]) -> Vectors:
        return np.stack([embed(engine, bundle, [picture])[0] for picture in pictures])

    found: dict[str, NDArray[np.generic]] = _aid(data / "aid_rsicd.zip", run)
    for kind in KINDS:
        found[f"fit {kind}"] = run(make(kind, FITTED, 0))
        found[f"report {kind}"] = run(make(kind, REPORTED, 1))
    for name in ("uav_brighton_beach/*.JPG", "uav_cars/**/*.jpg", "levir_cd/[AB]/*.png", "neon_pairs/*/*.tif"):
        found[f"ground {name.split('/')[0]}"] = run(read_image(path) for path in sorted(data.glob(name)))
    for film in (HERE.parent / "station" / "demo" / "flight.mp4", data / "uav_karma.mp4"):
        frames = open_source(str(film)).frames()
        found[f"ground {film.stem}"] = run(frame for frame in frames if frame.number % VIDEO_EVERY == 0)
    engine.close()
    return found


def _aid(archive: Path, run: Callable[[Iterable[NDArray[np.uint8]]], Vectors]) -> dict[str, NDArray[np.generic]]:
    with zipfile.ZipFile(archive) as opened:
        lines = io.TextIOWrapper(opened.open("captions.jsonl"))
        rows = [row for row in map(json.loads, lines) if row["split"] != "train"][::EVERY]
        vectors = run(_decode(opened.read(row["file"])) for row in rows)
    scenes = np.array([name_scene(row["scene"]) for row in rows])
    return {"aid": vectors, "aid scene": scenes, "aid split": np.array([row["split"] for row in rows])}


def _decode(raw: bytes) -> NDArray[np.uint8]:
    pixels = np.asarray(cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR))
    return np.ascontiguousarray(pixels[:, :, ::-1])


def fit_probe(positives: Vectors, negatives: Vectors, penalty: float) -> tuple[NDArray[np.float64], float]:
    """Fit a logistic probe with both classes weighted alike, by Newton's method; return its weights and bias."""
    rows = np.concatenate([positives, negatives]).astype(np.float64)
    rows = np.column_stack([rows, np.ones(len(rows))])
    signs = np.repeat([1.0, -1.0], [len(positives), len(negatives)])
    shares = np.repeat([0.5 / len(positives), 0.5 / len(negatives)], [len(positives), len(negatives)])
    penalties = np.append(np.full(rows.shape[1] - 1, penalty), 1e-9)
    weights = np.zeros(rows.shape[1])
    for _ in range(40):
        chances = 1 / (1 + np.exp(-signs * (rows @ weights)))
        slope = penalties * weights - rows.T @ (signs * shares * (1 - chances))
        curve = (rows * (shares * chances * (1 - chances))[:, None]).T @ rows + np.diag(penalties)
        weights -= np.linalg.solve(curve, slope)
    return weights[:-1], float(weights[-1])


def best_threshold(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the threshold with the best F1 over all pairs of picture and label, with its recall and false labels."""
    order = np.argsort(-scores, axis=None)
    hits = np.cumsum(truth.ravel()[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())
    threshold = float(scores.ravel()[order][int(f1.argmax())])
    return round(threshold, 2), *rates(scores, truth, round(threshold, 2))


def rates(scores: NDArray[np.floating], truth: NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """Return the share of true labels that are present, and the false labels per picture."""
    present = scores >= threshold
    return float(present[truth].mean()), float((present & ~truth).sum() / len(scores))


def fit(found: dict[str, NDArray[np.generic]], bundle: Bundle) -> DefaultDecisions:
    """Fit threshold and background on the validation half, and report both on the other."""
    manifest = bundle.manifest
    bank = compile_bank(HERE / "aerial.toml", bundle)
    names = [label.text for label in bank.header.labels if not label.background]
    labels = bank.vectors[: len(names)]
    aid, valid = np.asarray(found["aid"], np.float32), found["aid split"] != "test"
    labelled = {name: row for row, name in enumerate(names)}
    truth = np.zeros((len(aid), len(names)), np.bool_)
    scenes = [LABELS.get(str(scene), str(scene)) for scene in found["aid scene"]]
    truth[np.arange(len(aid)), [labelled[scene] for scene in scenes]] = True
    cosines = aid @ labels.T
    scores = 1 / (1 + np.exp(-(np.exp(manifest.logit_scale) * cosines + manifest.logit_bias)))
    threshold, *_ = best_threshold(scores[valid], truth[valid])
    recall, false_labels = rates(scores[~valid], truth[~valid], threshold)

    def part(begins: str, step: slice = slice(None)) -> Vectors:
        return np.concatenate([np.asarray(found[name], np.float32)[step] for name in found if name.startswith(begins)])

    ground = np.concatenate([aid[valid], part("ground ", slice(0, None, 2))])
    weights, bias = fit_probe(part("fit "), ground, PENALTY)
    length = float(np.linalg.norm(weights))
    background = BackgroundVector(
        "no view",
        tuple(round(float(number), 5) for number in weights / length),
        round(float(np.log(SHARPNESS * length)), 4),
        round(SHARPNESS * (bias - MARGIN), 4),
    )

    def share(vectors: Vectors) -> float:
        logits = SHARPNESS * (vectors @ weights + bias - MARGIN)
        best = (np.exp(manifest.logit_scale) * vectors @ labels.T + manifest.logit_bias).max(axis=1)
        return round(float((logits > best).mean()), 3)

    report = {f"unknown of {kind}": share(np.asarray(found[f"report {kind}"], np.float32)) for kind in KINDS}
    report |= {
        "recall on AID test": round(recall, 3),
        "false labels per picture on AID test": round(false_labels, 3),
        "AID test taken for no view": share(aid[~valid]),
        "other ground imagery taken for no view": share(part("ground ", slice(1, None, 2))),
    }
    return DefaultDecisions(SCHEMA, manifest.tower, threshold, (background,), report)


def main() -> None:
    """Embed, fit, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with aid_rsicd.zip and the drone imagery")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path, help="an .npz that keeps the embeddings")
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    if given.cache is not None and given.cache.is_file():
        found = dict(np.load(given.cache))
    else:
        found = embed_all(given.data, bundle)
        if given.cache is not None:
            np.savez(given.cache, allow_pickle=False, **found)
    fitted = fit(found, bundle)
    write_atomically(given.out, msgspec.json.format(msgspec.json.encode(fitted), indent=1) + b"\n")
    print("\n".join(f"{name}: {value:g}" for name, value in {"threshold": fitted.threshold, **fitted.report}.items()))


if __name__ == "__main__":
    main()
