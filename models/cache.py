"""Run the pretrained lower blocks once over every training image and keep their tokens."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from overflight.models import augment, forward
from overflight.models.corpus import Corpus, load
from overflight.models.towers import Shape, build

CHUNK = 64
BLOCKS = 3


def open_tokens(work: Path) -> np.ndarray:
    """Map the kept tokens, float16 `[views, images, T, D]`; view 0 is unchanged."""
    tokens: np.ndarray = np.load(work / "tokens.npy", mmap_mode="r")
    return tokens


def fill(work: Path, corpus: Corpus, shape: Shape, blocks: int, views: int, workers: int) -> None:
    """Write `tokens.npy` for all training rows: the tokens after the first `blocks` blocks."""
    rows = corpus.rows("train")
    vision = build(shape, 0).vision_model
    side = shape.image_px // shape.patch_px
    partial = work / "tokens.partial.npy"
    kept = np.lib.format.open_memmap(
        partial,
        mode="w+",
        dtype=np.float16,
        shape=(views, len(rows), side * side, shape.width),
    )
    starts = [(view, start) for view in range(views) for start in range(0, len(rows), CHUNK)]
    began = time.monotonic()

    def write(job: tuple[int, int]) -> None:
        view, start = job
        frames = corpus.pixels[rows[start : start + CHUNK]]
        draw = np.random.default_rng((7, view, start))
        if view == 0:
            pixels = augment.prepare(frames, shape.image_px)
        else:
            pixels = augment.make_batch(frames, shape.image_px, augment.Strength(), draw)
        with torch.inference_mode():
            tokens = forward.embed_patches(pixels, vision)
            tokens = forward.run_blocks(tokens, vision.encoder.layers[:blocks])
        kept[view, start : start + CHUNK] = tokens.to(torch.float16).numpy()

    with ThreadPoolExecutor(workers) as pool:
        for number, _ in enumerate(pool.map(write, starts), 1):
            if number % 20 == 0:
                left = (time.monotonic() - began) / number * (len(starts) - number) / 60
                print(f"{number} of {len(starts)} parts, {left:.0f} min left", flush=True)
    kept.flush()
    partial.rename(work / "tokens.npy")


def main() -> None:
    """Keep the tokens of the frozen blocks; safe to run again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.work / "tokens.npy").exists():
        shape = Shape(vocabulary=64)
        fill(args.work, load(args.work), shape, args.blocks, args.views, args.workers)


if __name__ == "__main__":
    main()
