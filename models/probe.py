"""Evaluate frozen embeddings by a linear probe and nearest neighbours, compared with the untrained start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from overflight.models import augment, forward, measures
from overflight.models.reading import Checkpoint, normalise, spread
from overflight.models.towers import Shape, build

if TYPE_CHECKING:
    from overflight.models.corpus import Corpus

C = 0.316


def fit_linear(known: np.ndarray, label: np.ndarray, query: np.ndarray, count: int) -> np.ndarray:
    """Return class scores `[N, count]` of L2-regularised logistic regression (C = 0.316)."""
    mean, deviation = known.mean(0), known.std(0) + 1e-6
    x = torch.tensor((known - mean) / deviation, dtype=torch.float32)
    y = torch.tensor(label)
    layer = nn.Linear(x.shape[1], count)
    nn.init.zeros_(layer.weight)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def close() -> torch.Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(layer(x), y)
        loss = loss + layer.weight.square().sum() / (2 * C * len(x))
        loss.backward()
        return loss

    optimiser.step(close)
    with torch.no_grad():
        scores: np.ndarray = layer(torch.tensor((query - mean) / deviation).float()).numpy()
    return scores


def embed_start(corpus: Corpus, rows: np.ndarray, px: int, blocks: int) -> np.ndarray:
    """Return the untrained start's features: the mean patch token after the kept blocks."""
    vision = build(Shape(image_px=px, image_blocks=blocks, vocabulary=64), 0).vision_model

    def embed(start: int) -> np.ndarray:
        with torch.inference_mode():
            pixels = augment.prepare(corpus.pixels[rows[start : start + 32]], px)
            tokens = forward.embed_patches(pixels, vision)
            tokens = forward.run_blocks(tokens, vision.encoder.layers)
            return np.asarray(tokens.mean(1).numpy())

    return normalise(np.concatenate(spread(embed, range(0, len(rows), 32))))


def judge(known: np.ndarray, label: np.ndarray, query: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return top-1 of the linear probe and of 20 nearest neighbours."""
    count = int(label.max()) + 1
    return {
        "linear_probe": measures.top1(fit_linear(known, label, query, count), truth),
        "knn_20": measures.top1(measures.vote(known, label, query, count), truth),
    }


def measure(checkpoint: Checkpoint, corpus: Corpus, split: str, images: np.ndarray) -> dict[str, dict[str, float]]:
    """Return both judgements for the checkpoint and for its untrained start."""
    train, rows = corpus.rows("train"), corpus.rows(split)
    label, truth = corpus.scene[train], corpus.scene[rows]
    known = checkpoint.embed_images(corpus.pixels[train], half=True)
    blocks = int(checkpoint.model.config.vision_config.num_hidden_layers)
    start = {name: embed_start(corpus, r, checkpoint.px, blocks) for name, r in (("train", train), (split, rows))}
    return {
        "checkpoint": judge(known, label, images, truth),
        "untrained start": judge(start["train"], label, start[split], truth),
    }
