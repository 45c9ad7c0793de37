"""Settle the text tower in the joint space, where the prompts of a scene must be near its images."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from overflight.models import augment, distil, forward, tokens, vocabulary
from overflight.models.checkpoint import merge_bridge
from overflight.models.corpus import Corpus, load
from overflight.models.reading import spread
from overflight.models.scenes import TRAINING_TEMPLATES, fill, name_scene
from overflight.models.towers import Shape, build
from overflight.models.train import Run, TrainingPlan

SMOOTHING = 0.1
IMAGES = 512


def open_run(path: Path, width: int) -> Run:
    """Return the averaged weights of an image run: tower, bridge and scores."""
    run = Run(TrainingPlan(), torch.zeros(width))
    run.load_state_dict(torch.load(path, weights_only=True)["average"])
    run.requires_grad_(False)
    return run


def open_text(path: Path, pieces: int, bridge: dict[str, Tensor]) -> nn.Module:
    """Return the distilled text tower with the bridge folded into its last layer."""
    saved = dict(torch.load(path, weights_only=True)["text"])
    saved["head.weight"], saved["head.bias"] = merge_bridge(saved["head.weight"], saved["head.bias"], bridge)
    text: nn.Module = build(Shape(vocabulary=pieces), 0, pretrained=False).text_model
    text.load_state_dict(saved)
    return text


def embed_images(run: Run, corpus: Corpus, rows: np.ndarray) -> Tensor:
    """Return unit embeddings `[N, D]` of unchanged images under the trained image tower."""

    def embed(start: int) -> np.ndarray:
        pixels = augment.prepare(corpus.pixels[rows[start : start + 32]], TrainingPlan.image_px)
        with torch.inference_mode():
            return np.asarray(forward.encode_images(pixels, run.vision).numpy())

    found = torch.from_numpy(np.concatenate(spread(embed, range(0, len(rows), 32))))
    return functional.normalize(found, dim=-1)


def align(work: Path, image: str, steps: int, batch: int, rate: float, seed: int) -> None:
    """Train the text tower alone and write `aligned.pt`; the image tower and its bridge stand still.

    A step takes every scene under one training template next to texts from the whole pool, so that the
    open vocabulary stays where the teacher put it: the loss is `distil`'s, in the joint space, plus a
    softmax of training images over the scenes' prompts.
    """
    corpus, pool = load(work), vocabulary.load(work)
    run = open_run(work / f"{image}.pt", pool.targets.shape[1])
    rows = corpus.rows("train")
    images, scene = embed_images(run, corpus, rows), torch.tensor(corpus.scene[rows])
    processor = tokens.load_processor(work / "spiece.model")
    text = open_text(work / "text.pt", processor.get_piece_size(), run.bridge.state_dict())
    ids = torch.tensor(tokens.encode(processor, pool.texts).astype(np.int32))
    targets = run.bridge(torch.from_numpy(pool.targets.astype(np.float32)))
    names = [name_scene(name) for name in corpus.scenes]
    row = dict(zip(pool.texts, pool.target.tolist(), strict=True))
    own = targets[[row[name] for name in names]]
    kinds = [np.flatnonzero(pool.group == kind) for kind in range(len(distil.SHARES))]
    optimiser = distil.make_optimiser(text, rate)
    draw = np.random.default_rng((seed, 2))
    torch.set_num_threads(2)
    began, total = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * distil.schedule(step, steps, warm=20)
        prompts = tokens.encode(processor, [fill(str(draw.choice(TRAINING_TEMPLATES)), name) for name in names])
        chosen = distil.draw_rows(kinds, batch, draw)
        out = forward.encode_texts(torch.cat([torch.from_numpy(prompts), ids[chosen].long()]), text)
        loss = distil.measure_loss(out, torch.cat([own, targets[pool.target[chosen]]]))
        seen = torch.from_numpy(draw.integers(len(images), size=IMAGES))
        bank = functional.normalize(out[: len(names)], dim=-1)
        logits = run.scores.choices(images[seen] @ bank.T)
        loss = loss + functional.cross_entropy(logits, scene[seen], label_smoothing=SMOOTHING)
        total += distil.descend(text, optimiser, loss)
        if step % 50 == 49:
            left = (time.monotonic() - began) / (step + 1) * (steps - step - 1) / 60
            print(f"step {step + 1}/{steps} loss {total / 50:.4f}, {left:.0f} min left", flush=True)
            total = 0.0
    distil.save(work / "aligned.pt", {"text": text.state_dict(), "bridged": True})


def main() -> None:
    """Settle the text tower; kept when it was done before."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--image", default="image", help="name of the image run")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.work / "aligned.pt").exists():
        align(args.work, args.image, args.steps, args.batch, args.rate, args.seed)


if __name__ == "__main__":
    main()
