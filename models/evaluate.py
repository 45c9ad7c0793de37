"""Measure a checkpoint and write every figure of the card as one JSON file."""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from overflight.models import corpus as corpora
from overflight.models import measures, openness, probe, vocabulary
from overflight.models.degrade import SPOILERS
from overflight.models.picture import draw_confusion
from overflight.models.reading import Checkpoint, normalise
from overflight.models.scenes import (
    HELD_OUT_TEMPLATES,
    SINGLE_HELD_OUT,
    TRAINING_TEMPLATES,
    fill,
    name_scene,
)
from overflight.station.evaluate.measures import share
from overflight.station.evaluate.retrieval import as_queries

if TYPE_CHECKING:
    from overflight.models.corpus import Corpus

PUBLISHED = {
    "RemoteCLIP ViT-L-14 on AID, zero-shot, in-domain, `a satellite photo of {name}`": 0.8790,
    "RemoteCLIP ViT-B-32 on AID, zero-shot, in-domain": 0.9130,
}


def score_templates(
    checkpoint: Checkpoint, images: np.ndarray, truth: np.ndarray, names: list[str]
) -> dict[str, object]:
    """Return top-1 of every template by itself and of the ensembles."""
    found: dict[str, object] = {}
    for label, templates in (("held out", HELD_OUT_TEMPLATES), ("training", TRAINING_TEMPLATES)):
        prompts = [fill(template, name) for template in templates for name in names]
        vectors = checkpoint.embed_texts(prompts).reshape(len(templates), len(names), -1)
        single = {template: measures.top1(images @ vectors[row].T, truth) for row, template in enumerate(templates)}
        bank = normalise(vectors.mean(0))
        right = share((images @ bank.T).argmax(1) == truth)
        values = np.array(list(single.values()))
        found[label] = {
            "templates": len(templates),
            "ensemble_top1": right.value,
            "ensemble_interval95": [right.low, right.high],
            "single_mean": float(values.mean()),
            "single_min": float(values.min()),
            "single_max": float(values.max()),
            "single": {t: single[t] for t in templates if label == "training" or t in single},
        }
    plain = checkpoint.embed_texts(names)
    found["plain names"] = measures.top1(images @ plain.T, truth)
    return found


def tabulate_scenes(scores: np.ndarray, truth: np.ndarray, names: list[str]) -> dict[str, object]:
    """Return per-scene recall, precision and commonest mistake, and the confusion counts."""
    table = measures.confusion(scores.argmax(1), truth, len(names))
    rows = {}
    for row, name in enumerate(names):
        wrong = table[row].copy()
        wrong[row] = 0
        worst = int(wrong.argmax())
        rows[name] = {
            "images": int(table[row].sum()),
            "recall": float(table[row, row] / table[row].sum()),
            "precision": float(table[row, row] / max(1, table[:, row].sum())),
            "mistaken_for": names[worst] if wrong[worst] else None,
            "mistakes": int(wrong[worst]),
        }
    return {"rows": rows, "confusion": table.tolist()}


def measure_retrieval(checkpoint: Checkpoint, images: np.ndarray, captions: list[list[str]]) -> dict[str, float]:
    """Return R@1, R@5, R@10 both ways, one image to five raw captions, as RemoteCLIP counts."""
    texts, owner = as_queries(captions)
    scores = images @ checkpoint.embed_texts(texts, half=True).T
    positive = owner[None] == np.arange(len(captions))[:, None]
    found = {}
    for depth in (1, 5, 10):
        found[f"image_to_text_R@{depth}"] = measures.recall(scores, positive, depth)
        found[f"text_to_image_R@{depth}"] = measures.recall(scores.T, positive.T, depth)
    found["mean_recall"] = float(np.mean(list(found.values())))
    return found


def measure_robustness(
    checkpoint: Checkpoint, frames: np.ndarray, truth: np.ndarray, bank: np.ndarray
) -> dict[str, float]:
    """Return top-1 with the held-out ensemble under every kind of damage."""
    found = {}
    for label, spoil in SPOILERS.items():
        images = checkpoint.embed_images(frames, spoil, half=True)
        found[label] = measures.top1(images @ bank.T, truth)
        print(f"{label}: {found[label]:.4f}", flush=True)
    return found


def measure_latency(checkpoint: Checkpoint, rounds: int = 40) -> dict[str, object]:
    """Return milliseconds of one image through the float32 image tower on one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pixels = torch.zeros(1, 3, checkpoint.px, checkpoint.px)
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            begin = time.perf_counter_ns()
            checkpoint.model.vision_model(pixel_values=pixels)
            times.append((time.perf_counter_ns() - begin) / 1e6)
    torch.set_num_threads(threads)
    kept = np.array(times[5:])
    return {
        "engine": f"torch {torch.__version__}, float32, 1 thread, batch 1",
        "processor": platform.processor() or platform.machine(),
        "p50_ms": float(np.median(kept)),
        "min_ms": float(kept.min()),
        "p90_ms": float(np.quantile(kept, 0.9)),
    }


def describe(checkpoint: Checkpoint, corpus: Corpus, work: Path) -> dict[str, object]:
    """Return sizes, and what the leakage check dropped."""
    leaks = json.loads((work / "index.json").read_text())["leaks"]
    model = checkpoint.model
    return {
        "image_px": checkpoint.px,
        "parameters": {
            "image": sum(p.numel() for p in model.vision_model.parameters()),
            "text": sum(p.numel() for p in model.text_model.parameters()),
        },
        "weights_mb": sum(p.stat().st_size for p in checkpoint.folder.glob("*.safetensors")) / 1e6,
        "images": {split: len(corpus.rows(split)) for split in corpora.SPLITS},
        "dropped_training_images": sorted({corpus.files[pair[0]] for pair in leaks}),
        "scale": checkpoint.scale,
        "bias": checkpoint.bias,
    }


def evaluate(folder: Path, work: Path, split: str, brief: bool) -> dict[str, object]:
    """Return all figures of a checkpoint on a split."""
    corpus, checkpoint = corpora.load(work), Checkpoint(folder)
    rows = corpus.rows(split)
    names = [name_scene(scene) for scene in corpus.scenes]
    truth = corpus.scene[rows]
    images = checkpoint.embed_images(corpus.pixels[rows])
    bank = checkpoint.embed_bank(names, HELD_OUT_TEMPLATES)
    found: dict[str, object] = {
        "split": split,
        "model": describe(checkpoint, corpus, work),
        "zero_shot": score_templates(checkpoint, images, truth, names),
    }
    if brief:
        return found
    found["scenes"] = tabulate_scenes(images @ bank.T, truth, names)
    found["retrieval"] = measure_retrieval(checkpoint, images, [corpus.captions[r] for r in rows])
    found["probe"] = probe.measure(checkpoint, corpus, split, images)
    found["open_set"] = openness.measure_open_set(images, truth, bank, names, checkpoint)
    found["open_vocabulary"] = openness.measure_vocabulary(
        checkpoint, images, truth, corpus.scenes, vocabulary.read_open_vocabulary()
    )
    found["robustness"] = measure_robustness(checkpoint, corpus.pixels[rows], truth, bank)
    found["latency"] = measure_latency(checkpoint)
    found["published"] = PUBLISHED
    found["templates_single_held_out"] = list(SINGLE_HELD_OUT)
    return found


def main() -> None:
    """Measure a checkpoint; `--split valid` while tuning, `test` once at the end."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    here = Path(__file__).parent
    parser.add_argument("--checkpoint", type=Path, default=here / "default")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--brief", action="store_true", help="zero-shot only")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--calibration", type=Path, help="JSON file of calibrate, to include")
    parser.add_argument("--picture", type=Path, help="confusion picture to write, PNG")
    args = parser.parse_args()
    found = evaluate(args.checkpoint, args.work, args.split, args.brief)
    if args.calibration:
        found["calibration"] = json.loads(args.calibration.read_text())
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.picture and not args.brief:
        scenes = found["scenes"]
        assert isinstance(scenes, dict)
        draw_confusion(np.array(scenes["confusion"]), list(scenes["rows"]), args.picture)
    zero_shot = found["zero_shot"]
    assert isinstance(zero_shot, dict)
    for label in ("held out", "training"):
        figures = {key: value for key, value in zero_shot[label].items() if key != "single"}
        print(label, json.dumps(figures))


if __name__ == "__main__":
    main()
