"""Fine-tune the image tower against the teacher's text space."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from overflight.models import augment, cache, forward, objective, vocabulary
from overflight.models.corpus import Corpus, load
from overflight.models.distil import save
from overflight.models.scenes import name_scene
from overflight.models.start import start_head
from overflight.models.tokens import canonicalise
from overflight.models.towers import Shape, build

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a run; two runs of one plan see the same batches."""

    steps: int = 1800
    batch: int = 128
    warm_steps: int = 20
    frozen_blocks: int = 2
    cached: bool = False
    head_rate: float = 5e-4
    block_rate: float = 1e-4
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    average: float = 0.99
    drop_path: float = 0.1
    token_share: float = 0.4
    cooling: float = 0.4
    whole_images: float = 0.12
    smoothing: float = 0.1
    softmax_weight: float = 2.0
    bridge_price: float = 0.02
    image_px: int = 140
    image_blocks: int = 6
    pretrained: bool = True
    seed: int = 0


@dataclass
class Texts:
    """The teacher's vectors of scene names and training captions, and each image's captions."""

    scenes: Tensor
    captions: Tensor
    mean: Tensor
    rows: list[list[int]]


class Run(nn.Module):  # type: ignore[misc]
    """What is trained: the image tower, the bridge between the spaces, scale and bias."""

    def __init__(self, plan: TrainingPlan, mean: Tensor) -> None:
        super().__init__()
        shape = Shape(image_px=plan.image_px, image_blocks=plan.image_blocks, vocabulary=64)
        self.vision = build(shape, plan.seed, plan.pretrained, fold=False).vision_model
        self.bridge = objective.Bridge(mean)
        self.scores = objective.Scores(positives=1 / 30)


def gather_texts(corpus: Corpus, pool: vocabulary.Pool) -> Texts:
    """Look up the teacher's vectors for all scenes and captions in the pool."""
    row = dict(zip(pool.texts, pool.target.tolist(), strict=True))
    names = [row[name_scene(scene)] for scene in corpus.scenes]
    rows = [[row[key] for text in texts if (key := canonicalise(text)) in row] for texts in corpus.captions]
    targets = torch.tensor(pool.targets.astype(np.float32))
    return Texts(targets[names], targets, targets[names].mean(0), rows)


def group_parameters(run: Run, plan: TrainingPlan) -> list[dict[str, object]]:
    """Return AdamW groups: the rate falls by `layer_decay` with every block away from the head."""
    vision = run.vision
    depth = len(vision.encoder.layers)
    levels: list[tuple[nn.Module, float]] = [(vision.embeddings, plan.layer_decay**depth)]
    for number, layer in enumerate(vision.encoder.layers):
        levels.append((layer, plan.layer_decay ** (depth - 1 - number)))
    groups: list[dict[str, object]] = []
    for module, factor in levels:
        for matrix in (True, False):
            chosen = [p for p in module.parameters() if (p.ndim > 1) == matrix]
            decay = plan.weight_decay if matrix else 0.0
            groups.append({"params": chosen, "rate": plan.block_rate * factor, "weight_decay": decay})
    head = [*vision.head.parameters(), *vision.post_layernorm.parameters()]
    groups.append({"params": head, "rate": plan.head_rate, "weight_decay": plan.weight_decay})
    loose = [*run.bridge.parameters(), *run.scores.parameters()]
    groups.append({"params": loose, "rate": plan.head_rate, "weight_decay": 0.0})
    return groups


def draw_batches(
    corpus: Corpus, work: Path, plan: TrainingPlan, first: int
) -> Iterator[tuple[np.ndarray, Tensor, np.random.Generator]]:
    """Yield (rows, pixels or kept tokens, generator) of every step, one batch ahead in a thread."""
    rows = corpus.rows("train")
    per_epoch = len(rows) // plan.batch
    kept = cache.open_tokens(work) if plan.cached else None

    def make(step: int) -> tuple[np.ndarray, Tensor, np.random.Generator]:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(rows))
        chosen = order[place * plan.batch : (place + 1) * plan.batch]
        draw = np.random.default_rng((plan.seed, 1, step))
        if kept is not None:
            view = draw.integers(len(kept), size=len(chosen))
            return rows[chosen], torch.from_numpy(kept[view, chosen]).float(), draw
        frames = corpus.pixels[rows[chosen]]
        pixels = augment.make_batch(frames, plan.image_px, augment.Strength(), draw)
        return rows[chosen], pixels, draw

    with ThreadPoolExecutor(1) as worker:
        ahead = worker.submit(make, first)
        for step in range(first, plan.steps):
            ready = ahead.result()
            ahead = worker.submit(make, step + 1)
            yield ready


def measure(run: Run, images: Tensor, scene: Tensor, drawn: Tensor, texts: Texts, plan: TrainingPlan) -> Tensor:
    """Return the loss of a batch: images against scene names and against the drawn captions."""
    unit = functional.normalize(images, dim=-1)
    to_scenes = unit @ run.bridge(texts.scenes).T
    to_captions = unit @ run.bridge(texts.captions[drawn]).T
    scene_signs = objective.pair_scenes(scene, len(texts.scenes))
    caption_signs = objective.pair_captions(scene, drawn, objective.IGNORED)
    loss = objective.sigmoid_loss(run.scores.pairs(to_scenes), scene_signs)
    loss = loss + objective.sigmoid_loss(run.scores.pairs(to_captions), caption_signs)
    choice = functional.cross_entropy(run.scores.choices(to_scenes), scene, label_smoothing=plan.smoothing)
    return loss + plan.softmax_weight * choice + plan.bridge_price * run.bridge.stretch()


def score(vision: nn.Module, pixels: Tensor, bank: Tensor) -> Tensor:
    """Return cosines of images against a bank of unit texts."""
    with torch.inference_mode():
        parts = [forward.encode_images(part, vision) for part in pixels.split(64)]
        cosines: Tensor = functional.normalize(torch.cat(parts), dim=-1) @ bank.T
    return cosines


def step_half(
    run: Run,
    plan: TrainingPlan,
    texts: Texts,
    part: tuple[Tensor, Tensor, Tensor],
    share: float,
    seed: int,
) -> tuple[float, tuple[Tensor | None, ...]]:
    """Return the loss and the gradients of a part of the batch (pixels, scenes, captions)."""
    pixels, scene, drawn = part
    draw = torch.Generator().manual_seed(seed)
    if plan.cached:
        images = forward.encode_tokens(pixels, run.vision, cache.BLOCKS, plan.drop_path, share, draw)
    else:
        images = forward.encode_images(pixels, run.vision, plan.drop_path, share, draw)
    loss = measure(run, images, scene, drawn, texts, plan)
    wanted = [p for p in run.parameters() if p.requires_grad]
    return loss.item(), torch.autograd.grad(loss, wanted, allow_unused=True)


def gather_gradients(run: Run, parts: list[tuple[float, tuple[Tensor | None, ...]]]) -> float:
    """Set every parameter's gradient to the mean over the parts; return the mean loss."""
    wanted = [p for p in run.parameters() if p.requires_grad]
    for number, parameter in enumerate(wanted):
        found = [g for _, grads in parts if (g := grads[number]) is not None]
        parameter.grad = found[0] if found else None
        for more in found[1:]:
            found[0].add_(more)
    grads = [p.grad for p in wanted if p.grad is not None]
    torch._foreach_div_(grads, float(len(parts)))
    return sum(loss for loss, _ in parts) / len(parts)


def follow(average: Run, run: Run, rate: float) -> None:
    """Move the averaged weights towards the run's."""
    pairs = zip(average.parameters(), run.parameters(), strict=True)
    moving = [(mean, value.detach()) for mean, value in pairs if value.requires_grad]
    with torch.no_grad():
        torch._foreach_lerp_([m for m, _ in moving], [v for _, v in moving], 1.0 - rate)


def schedule(step: int, plan: TrainingPlan) -> float:
    """Return the factor of the rates: warm up, hold, then cool to zero over the last share.

    Held rates let a run be prolonged by resuming it with more steps.
    """
    warm = min(1.0, (step + 1) / plan.warm_steps)
    cool = (plan.steps - step) / max(1.0, plan.cooling * plan.steps)
    return min(warm, cool)


def freeze(run: Run, blocks: int) -> None:
    """Stop training the patch embedding and the first blocks."""
    run.vision.embeddings.requires_grad_(blocks == 0)
    for number, layer in enumerate(run.vision.encoder.layers):
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(number >= blocks and not name.startswith("gain"))


def begin(run: Run, corpus: Corpus, work: Path, plan: TrainingPlan, texts: Texts) -> None:
    """Start the head by regression on the unchanged view of every training image."""
    path = work / "start.pt"
    if not path.exists():
        rows = corpus.rows("train")
        targets = run.bridge(texts.scenes).detach()[torch.tensor(corpus.scene[rows])]
        tokens = torch.from_numpy(cache.open_tokens(work)[0].copy())
        start_head(run.vision, tokens, targets, cache.BLOCKS)
        own = ("vision.head", "vision.post_layernorm")
        save(path, {k: v for k, v in run.state_dict().items() if k.startswith(own)})
    run.load_state_dict(torch.load(path, weights_only=True), strict=False)


def train(work: Path, name: str, plan: TrainingPlan, every: int, workers: int) -> dict[str, float]:
    """Run the plan, resuming `NAME.pt` when it exists, and return the last figures on valid."""
    corpus, pool = load(work), vocabulary.load(work)
    texts = gather_texts(corpus, pool)
    run, average = (Run(plan, texts.mean) for _ in range(2))
    freeze(run, plan.frozen_blocks)
    optimiser = torch.optim.AdamW(group_parameters(run, plan), betas=(0.9, 0.98), fused=True)
    path, first, best = work / f"{name}.pt", 0, {}
    if path.exists():
        saved = torch.load(path, weights_only=True)
        run.load_state_dict(saved["run"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    else:
        begin(run, corpus, work, plan, texts)
        average.load_state_dict(run.state_dict())
    valid = corpus.rows("valid")
    valid_pixels = augment.prepare(corpus.pixels[valid], plan.image_px)
    valid_scene = torch.tensor(corpus.scene[valid])
    began, total, seen = time.monotonic(), 0.0, 0
    pool_of_workers = ThreadPoolExecutor(workers)
    whole_from = (1 - plan.whole_images) * plan.steps
    for step, (rows, pixels, draw) in enumerate(draw_batches(corpus, work, plan, first), first):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * schedule(step, plan)
        share = plan.token_share if step < whole_from else 1.0
        drawn = torch.tensor([int(draw.choice(texts.rows[row])) for row in rows])
        whole = (pixels, torch.tensor(corpus.scene[rows]), drawn)
        parts = zip(*(tensor.chunk(workers) for tensor in whole), strict=True)
        futures = [
            pool_of_workers.submit(step_half, run, plan, texts, part, share, workers * step + place)
            for place, part in enumerate(parts)
        ]
        optimiser.zero_grad()
        total += gather_gradients(run, [future.result() for future in futures])
        seen += 1
        nn.utils.clip_grad_norm_(run.parameters(), 5.0)
        optimiser.step()
        follow(average, run, min(plan.average, (step + 1) / (step + 10)))
        if step % 20 == 19:
            pace = (time.monotonic() - began) / (step + 1 - first)
            left = pace * (plan.steps - step - 1) / 60
            rate = plan.batch / pace
            print(
                f"step {step + 1}/{plan.steps} loss {total / seen:.3f} {rate:.0f} img/s, {left:.0f} min left",
                flush=True,
            )
            total, seen = 0.0, 0
        if step % every == every - 1 or step == plan.steps - 1:
            bank = average.bridge(texts.scenes).detach()
            right = score(average.vision, valid_pixels, bank).argmax(1) == valid_scene
            best = {"step": step + 1, "valid_top1": right.float().mean().item()}
            print(json.dumps(best), flush=True)
            state = {"run": run.state_dict(), "average": average.state_dict()}
            save(path, {**state, "optimiser": optimiser.state_dict(), "step": step + 1})
    (work / f"{name}.json").write_text(json.dumps({"plan": asdict(plan), **best}))
    return best


def main() -> None:
    """Train the image tower; run again to resume."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="image")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--every", type=int, default=200, help="steps between measures on valid")
    parser.add_argument("--workers", type=int, default=2, help="parts of a batch done at once")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plan = TrainingPlan()
    for pair in args.set:
        field, value = pair.split("=")
        plan = replace(plan, **{field: type(getattr(plan, field))(json.loads(value))})
    train(args.work, args.name, plan, args.every, args.workers)


if __name__ == "__main__":
    main()
