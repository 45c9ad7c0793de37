"""Teach the text tower to land every text where the sentence-embedding teacher puts it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from overflight.models import forward, tokens, vocabulary
from overflight.models.towers import Shape, build

SHARES = (0.30, 0.35, 0.15, 0.20)
SHORT_PLACES = (*range(24), *range(56, 64))
SHORT_SHARE = 0.85


def project_pieces(text: nn.Module, pieces: list[str]) -> None:
    """Start each piece's embedding at its teacher embedding, cut to the main directions.

    The tower then begins as a bag of words and only has to learn how words combine.
    """
    from overflight.models.teacher import embed

    words = [piece.replace("\u2581", " ").strip() or "." for piece in pieces]
    vectors = torch.tensor(embed(words))
    vectors -= vectors.mean(0)
    width = text.embeddings.token_embedding.weight.shape[1]
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    reduced = vectors @ axes[:width].T
    with torch.no_grad():
        text.embeddings.token_embedding.weight.copy_(reduced * (0.5 / reduced.std()))
        text.embeddings.token_embedding.weight[tokens.END_ID] = 0.0
        text.embeddings.position_embedding.weight.mul_(0.1)


def draw_rows(kinds: list[np.ndarray], count: int, draw: np.random.Generator) -> np.ndarray:
    """Draw `count` rows: names under templates, captions, words and phrases in fixed shares."""
    parts = draw.multinomial(count, SHARES)
    return np.concatenate([draw.choice(rows, n) for rows, n in zip(kinds, parts, strict=True)])


def measure_loss(out: Tensor, target: Tensor) -> Tensor:
    """Return squared distance to the target plus the error of the batch's similarities."""
    distance = (out - target).square().sum(-1).mean()
    unit = functional.normalize(out, dim=-1)
    relation = (unit @ unit.T - target @ target.T).square().mean()
    return distance + 4.0 * relation


def make_optimiser(text: nn.Module, rate: float) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only."""
    matrices = [p for p in text.parameters() if p.ndim > 1]
    vectors = [p for p in text.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def descend(text: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take one step down, the gradient held to length one, and return the loss."""
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(text.parameters(), 1.0)
    optimiser.step()
    return float(loss)


def schedule(step: int, steps: int, warm: int = 200) -> float:
    """Return the factor of the learning rate: linear warm-up, then cosine to zero."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def save(path: Path, state: dict[str, object]) -> None:
    """Write a resumable state, never leaving a torn file."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def distil(work: Path, steps: int, batch: int, rate: float, seed: int) -> None:
    """Train the text tower, saving `text.pt` every 200 steps and resuming it when it exists."""
    pool = vocabulary.load(work)
    processor = tokens.load_processor(work / "spiece.model")
    ids = torch.tensor(tokens.encode(processor, pool.texts).astype(np.int32))
    text = build(Shape(vocabulary=processor.get_piece_size()), seed, pretrained=False).text_model
    optimiser = make_optimiser(text, rate)
    first, path = 0, work / "text.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        text.load_state_dict(saved["text"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    else:
        project_pieces(text, [processor.id_to_piece(i) for i in range(processor.get_piece_size())])
    draw = np.random.default_rng((seed, first))
    short = (ids[:, 24:] == tokens.END_ID).all(1).numpy()
    kinds = [np.flatnonzero((pool.group == kind) & short) for kind in range(len(SHARES))]
    places = torch.tensor(SHORT_PLACES)
    began, total = time.monotonic(), 0.0
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, steps)
        rows = draw_rows(kinds, batch, draw)
        target = torch.tensor(pool.targets[pool.target[rows]].astype(np.float32))
        where = places if step < SHORT_SHARE * steps else None
        loss = measure_loss(forward.encode_texts(ids[rows].long(), text, where), target)
        total += descend(text, optimiser, loss)
        if step % 50 == 49:
            pace = (time.monotonic() - began) / (step + 1 - first)
            left = pace * (steps - step - 1) / 60
            print(f"step {step + 1}/{steps} loss {total / 50:.4f}, {left:.0f} min left", flush=True)
            total = 0.0
        if step % 200 == 199 or step == steps - 1:
            state = {"text": text.state_dict(), "optimiser": optimiser.state_dict()}
            save(path, {**state, "step": step + 1})


def main() -> None:
    """Teach the text tower; run again to resume."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    distil(args.work, args.steps, args.batch, args.rate, args.seed)


if __name__ == "__main__":
    main()
