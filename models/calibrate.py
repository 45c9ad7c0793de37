"""Fit the checkpoint's scale and bias on valid, so that its sigmoid is a probability."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from overflight.models import corpus as corpora
from overflight.models import measures
from overflight.models.reading import Checkpoint
from overflight.models.scenes import HELD_OUT_TEMPLATES, TRAINING_TEMPLATES, name_scene
from overflight.station.evaluate.measures import calibration_error


def judge(cosines: np.ndarray, truth: np.ndarray, scale: float, bias: float) -> dict[str, float]:
    """Return calibration errors of the sigmoid, over all pairs and over each image's best label."""
    probability = measures.sigmoid(scale * cosines + bias)
    positive = truth[:, None] == np.arange(cosines.shape[1])[None]
    right = cosines.argmax(1) == truth
    loss = -np.log(np.where(positive, probability, 1 - probability).clip(1e-12))
    return {
        "scale": scale,
        "bias": bias,
        "ece_pairs": calibration_error(probability.ravel(), positive.ravel()),
        "ece_best_label": calibration_error(probability.max(1), right),
        "mean_best_probability": float(probability.max(1).mean()),
        "top1": float(right.mean()),
        "log_loss_per_image": float(loss.sum(1).mean()),
    }


def calibrate(folder: Path, work: Path) -> dict[str, object]:
    """Fit on valid under training templates, report valid and test under held-out templates."""
    corpus, checkpoint = corpora.load(work), Checkpoint(folder)
    names = [name_scene(scene) for scene in corpus.scenes]
    seen = checkpoint.embed_bank(names, TRAINING_TEMPLATES)
    unseen = checkpoint.embed_bank(names, HELD_OUT_TEMPLATES)
    images = {split: checkpoint.embed_images(corpus.pixels[corpus.rows(split)]) for split in ("valid", "test")}
    truth = {split: corpus.scene[corpus.rows(split)] for split in images}
    cosines = images["valid"] @ seen.T
    positive = truth["valid"][:, None] == np.arange(len(names))[None]
    scale, bias = measures.fit_sigmoid(cosines, positive)
    found: dict[str, object] = {}
    for split, vectors in images.items():
        pairs = vectors @ unseen.T, truth[split]
        found[f"{split} before"] = judge(*pairs, checkpoint.scale, checkpoint.bias)
        found[f"{split} after"] = judge(*pairs, scale, bias)
    return {"scale": scale, "bias": bias, **found}


def store(folder: Path, scale: float, bias: float) -> None:
    """Write scale (as its logarithm) and bias into the checkpoint's weights."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    shape, kind = weights["logit_scale"].shape, weights["logit_scale"].dtype
    weights["logit_scale"] = torch.full(shape, math.log(scale), dtype=kind)
    weights["logit_bias"] = torch.full(shape, bias, dtype=kind)
    partial = path.with_suffix(".partial")
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.rename(path)


def main() -> None:
    """Calibrate a checkpoint in place and write the calibration errors before and after."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    found = calibrate(args.checkpoint, args.work)
    store(args.checkpoint, float(str(found["scale"])), float(str(found["bias"])))
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
