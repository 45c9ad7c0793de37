"""Teach the trained image tower nearer ground: crops of its scenes, at several input sizes, against its own answers.

The tower that `checkpoint` wrote is the teacher and the start. It sees the whole scene; the student sees a crop, down
to a tenth of the side, and must answer as the teacher did. The text tower stands still, so labels keep their meaning.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from overflight.models import augment, forward, objective, strangers
from overflight.models.corpus import SOURCE_PX, Corpus, load
from overflight.models.distil import save
from overflight.models.nothing import KINDS
from overflight.models.reading import Checkpoint, normalise, spread
from overflight.models.scenes import TRAINING_TEMPLATES, name_scene
from overflight.models.towers import Shape, convert_backbone, fold_gains, read_backbone
from overflight.station.evaluate.corruptions import crop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.models.augment import Strength

NOTHING, UNLABELLED = -1, -2
WINDOW = 1000  # pixels of a mosaic of 0.1 m: with 100 m the teacher sees about what its scenes show
WINDOWS = 60  # of each large picture
PARTS = (1.0, 0.5, 0.25)  # of a side, as `overflight evaluate --task scale` crops


@dataclass(frozen=True)
class ScalePlan:
    """Everything that decides a run; two runs of one plan see the same batches.

    `whole_share` of the pictures are cropped as `train` does; the others to a share of the side drawn evenly on a
    logarithmic scale from `smallest` to one. `sides_px` are the input sizes, `side_shares` how often each is drawn.
    """

    steps: int = 900
    batch: int = 128
    warm_steps: int = 50
    head_rate: float = 2e-4
    block_rate: float = 1e-4
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    average: float = 0.998
    drop_path: float = 0.1
    token_share: float = 0.5
    cooling: float = 0.5
    all_tokens: float = 0.12
    smoothing: float = 0.1
    whole_share: float = 0.35
    smallest: float = 0.1
    sides_px: tuple[int, ...] = (98, 140, 182, 224)
    side_shares: tuple[float, ...] = (0.15, 0.55, 0.2, 0.1)
    teacher_weight: float = 4.0
    choice_weight: float = 2.0
    caption_weight: float = 0.5
    nothing: int = 8
    unlabelled: int = 8
    strangers: int = 10
    seed: int = 0


class Batch(NamedTuple):
    """Pixels `[N, 3, S, S]`, the scene, the caption's row, the teacher's answer, the share of the side.

    The scene is NOTHING for made-up pictures without a view, UNLABELLED for ground without a label.
    """

    pixels: Tensor
    scene: Tensor
    caption: Tensor
    teacher: Tensor
    part: Tensor


class Targets(NamedTuple):
    """What the student is held to: unit vectors `[30, D]` of scenes, `[M, D]` of captions, the teacher's answers.

    `answers` `[N, D]` are to whole training scenes, `own` are each scene's captions; `windows` are unlabelled pictures
    and `of_windows` the teacher's answers to them; `strangers` are pictures of what no scene is.
    """

    scenes: Tensor
    captions: Tensor
    answers: Tensor
    own: list[list[int]]
    windows: list[np.ndarray]
    of_windows: Tensor
    strangers: list[np.ndarray]


class Run(nn.Module):  # type: ignore[misc]
    """What is trained: the image tower and the scores."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.vision = unfold(checkpoint.model.vision_model)
        self.scores = objective.Scores(positives=1 / 30)
        with torch.no_grad():
            self.scores.scale.fill_(math.log(checkpoint.scale))
            self.scores.bias.fill_(checkpoint.bias)
            self.scores.sharpness.fill_(math.log(20.0))


def unfold(vision: nn.Module) -> nn.Module:
    """Set the backbone's LayerScales apart again: Adam's even steps would wreck matrices with tiny entries."""
    blocks = len(vision.encoder.layers)
    gains = convert_backbone(read_backbone(), Shape(image_blocks=blocks), fold=False)
    for number, layer in enumerate(vision.encoder.layers):
        for name, target in (("gain1", layer.self_attn.out_proj), ("gain2", layer.mlp.fc2)):
            gain = gains[f"encoder.layers.{number}.{name}"]
            with torch.no_grad():
                target.weight.div_(gain[:, None])
                target.bias.div_(gain)
            setattr(layer, name, nn.Parameter(gain, requires_grad=False))
    return vision


def group_parameters(run: Run, plan: ScalePlan) -> list[dict[str, object]]:
    """Return AdamW groups: the rate falls by `layer_decay` with every block away from the head."""
    vision = run.vision
    depth = len(vision.encoder.layers)
    parts: list[tuple[nn.Module, float]] = [(vision.embeddings, plan.block_rate * plan.layer_decay**depth)]
    for number, layer in enumerate(vision.encoder.layers):
        parts.append((layer, plan.block_rate * plan.layer_decay ** (depth - 1 - number)))
    parts += [(vision.post_layernorm, plan.head_rate), (vision.head, plan.head_rate), (run.scores, plan.head_rate)]
    groups: list[dict[str, object]] = []
    for module, rate in parts:
        for matrix in (True, False):
            chosen = [p for p in module.parameters() if p.requires_grad and (p.ndim > 1) == matrix]
            groups.append({"params": chosen, "rate": rate, "weight_decay": plan.weight_decay if matrix else 0.0})
    return groups


def draw_part(plan: ScalePlan, draw: np.random.Generator) -> float:
    """Draw the share of the side that a picture keeps."""
    if draw.random() < plan.whole_share:
        return float(np.sqrt(draw.uniform(0.55, 1.0)))
    return float(np.exp(draw.uniform(np.log(plan.smallest), 0.0)))


def shoot(frame: np.ndarray, part: float, px: int, strength: Strength, draw: np.random.Generator) -> np.ndarray:
    """Return a changed view uint8 `[px, px, 3]` of about `part` of a frame's side."""
    side = frame.shape[0]
    ratio = np.exp(draw.uniform(-1.0, 1.0) * np.log(strength.stretch))
    width, height = min(side, part * side * np.sqrt(ratio)), min(side, part * side / np.sqrt(ratio))
    left, top = draw.uniform(0, side - width), draw.uniform(0, side - height)
    image = Image.fromarray(frame).resize(
        (px, px), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
    )
    return augment.spoil(image, strength, draw)


def cut_windows(folders: list[Path]) -> list[np.ndarray]:
    """Return square windows uint8 `[S, S, 3]` of unlabelled pictures: many of a large one, one of a small one."""
    found = []
    draw = np.random.default_rng(0)
    for path in sorted(path for folder in folders for path in folder.rglob("*.png")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width, _ = pixels.shape
        for _ in range(WINDOWS if min(height, width) > WINDOW else 1):
            side = int(min(draw.uniform(WINDOW, 2.4 * WINDOW), height, width))
            top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
            found.append(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return found


def draw_batches(targets: Targets, corpus: Corpus, plan: ScalePlan, first: int) -> Iterator[Batch]:
    """Yield the batch of every step, made ahead by two threads."""
    rows = corpus.rows("train")
    loose = plan.unlabelled if targets.windows else 0
    foreign = plan.strangers if targets.strangers else 0
    none = plan.nothing + foreign
    own = plan.batch - loose - none
    per_epoch = len(rows) // own
    strength, kinds = augment.Strength(), list(KINDS.values())

    def make(step: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(rows))
        chosen = order[place * own : (place + 1) * own]
        draw = np.random.default_rng((plan.seed, 1, step))
        px = int(draw.choice(plan.sides_px, p=plan.side_shares))
        part = [draw_part(plan, draw) for _ in chosen]
        views = [shoot(corpus.pixels[rows[c]], p, px, strength, draw) for c, p in zip(chosen, part, strict=True)]
        others = draw.integers(len(targets.windows), size=loose) if loose else np.empty(0, int)
        for other in others:
            part.append(draw_part(plan, draw))
            views.append(shoot(targets.windows[other], part[-1], px, strength, draw))
        for _ in range(plan.nothing):
            made = Image.fromarray(kinds[int(draw.integers(len(kinds)))](draw))
            views.append(np.asarray(made.resize((px, px), Image.Resampling.BICUBIC)))
        chosen_strangers = draw.integers(len(targets.strangers), size=foreign) if foreign else ()
        views += [shoot(targets.strangers[n], draw_part(plan, draw), px, strength, draw) for n in chosen_strangers]
        answers = targets.answers
        return Batch(
            augment.relight(np.stack(views), strength, draw),
            torch.tensor([*corpus.scene[rows[chosen]].tolist(), *[UNLABELLED] * loose, *[NOTHING] * none]),
            torch.tensor([*(int(draw.choice(targets.own[c])) for c in chosen), *[0] * (loose + none)]),
            torch.cat([answers[chosen], targets.of_windows[others], torch.zeros(none, answers.shape[1])]),
            torch.tensor([*part, *[1.0] * none]),
        )

    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(make, step) for step in range(first, min(first + 3, plan.steps))]
        for step in range(first, plan.steps):
            ready = ahead.pop(0).result()
            if step + 3 < plan.steps:
                ahead.append(pool.submit(make, step + 3))
            yield ready


def measure(run: Run, images: Tensor, batch: Batch, targets: Targets, plan: ScalePlan) -> Tensor:
    """Return the loss of a batch: the teacher's answers, the scenes, the captions, and nothing where there is nothing.

    A crop counts less the smaller it is: what is true of a scene need not be true of a tenth of it.
    """
    unit = functional.normalize(images, dim=-1)
    known, view = batch.scene >= 0, batch.scene != NOTHING
    every_weight = (batch.part / 0.5).clamp(0.3, 1.0)
    unlike = (1 - (unit[view] * batch.teacher[view]).sum(-1)) * every_weight[view]
    weight = every_weight[known]
    to_scenes = unit @ targets.scenes.T
    signs = torch.full_like(to_scenes, objective.NEGATIVE)
    signs[known] = objective.pair_scenes(batch.scene[known], len(targets.scenes))
    signs[batch.scene == UNLABELLED] = objective.IGNORED
    losses = -functional.logsigmoid(signs * run.scores.pairs(to_scenes)) * (signs != objective.IGNORED)
    by_scene = (losses.sum(-1) * every_weight).mean()
    choice = functional.cross_entropy(
        run.scores.choices(to_scenes[known]), batch.scene[known], label_smoothing=plan.smoothing, reduction="none"
    )
    told = targets.captions[batch.caption[known]]
    pairs = objective.pair_captions(batch.scene[known], batch.caption[known], objective.IGNORED)
    loose = -functional.logsigmoid(pairs * run.scores.pairs(unit[known] @ told.T)) * (pairs != objective.IGNORED)
    return (
        by_scene
        + plan.teacher_weight * unlike.mean()
        + plan.choice_weight * (choice * weight).mean()
        + plan.caption_weight * (loose.sum(-1) * weight).mean()
    )


def step_part(
    run: Run, batch: Batch, targets: Targets, plan: ScalePlan, share: float, seed: int
) -> tuple[float, tuple[Tensor | None, ...]]:
    """Return the loss and the gradients of a part of a batch."""
    draw = torch.Generator().manual_seed(seed)
    images = forward.encode_images(batch.pixels, run.vision, plan.drop_path, share, draw)
    loss = measure(run, images, batch, targets, plan)
    wanted = [p for p in run.parameters() if p.requires_grad]
    return loss.item(), torch.autograd.grad(loss, wanted, allow_unused=True)


def descend(run: Run, parts: list[tuple[float, tuple[Tensor | None, ...]]]) -> float:
    """Set every gradient to the mean over the parts; return the mean loss."""
    for number, parameter in enumerate(p for p in run.parameters() if p.requires_grad):
        found = [gradient for _, grads in parts if (gradient := grads[number]) is not None]
        parameter.grad = None if not found else torch.stack(found).sum(0) / len(parts)
    nn.utils.clip_grad_norm_(run.parameters(), 5.0)
    return sum(loss for loss, _ in parts) / len(parts)


def schedule(step: int, plan: ScalePlan) -> float:
    """Return the factor of the rates: warm up, hold, then cool to zero over the last share."""
    warm = min(1.0, (step + 1) / plan.warm_steps)
    return min(warm, (plan.steps - step) / max(1.0, plan.cooling * plan.steps))


def judge(vision: nn.Module, frames: np.ndarray, truth: np.ndarray, scenes: Tensor, px: int = 140) -> dict[str, float]:
    """Return top-1 of the middle of frames, for each share of the side in `PARTS`."""
    found = {}
    for part in PARTS:

        def embed(start: int, part: float = part) -> np.ndarray:
            pixels = augment.prepare([crop(frame, part) for frame in frames[start : start + 64]], px)
            with torch.inference_mode():
                return np.asarray(forward.encode_images(pixels, vision).numpy())

        images = normalise(np.concatenate(spread(embed, range(0, len(frames), 64))))
        found[f"{part:g}"] = float(((images @ scenes.numpy().T).argmax(1) == truth).mean())
    return found


def gather(checkpoint: Checkpoint, corpus: Corpus, work: Path, unlabelled: list[Path], foreign: list[Path]) -> Targets:
    """Embed what the student is held to, once: the vectors are kept in `work`."""
    rows = corpus.rows("train")
    texts = sorted({text for row in rows for text in corpus.captions[row]})
    place = {text: number for number, text in enumerate(texts)}
    path = work / "scale-targets.npz"
    if not path.exists():
        bank = checkpoint.embed_bank([name_scene(scene) for scene in corpus.scenes], TRAINING_TEMPLATES)
        answers = checkpoint.embed_images(corpus.pixels[rows], half=True)
        np.savez(path, scenes=bank, answers=answers, captions=checkpoint.embed_texts(texts, half=True))
    kept = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    windows = cut_windows(unlabelled)
    reduced = [
        np.asarray(Image.fromarray(one).resize((SOURCE_PX, SOURCE_PX), Image.Resampling.BICUBIC)) for one in windows
    ]
    of_windows = checkpoint.embed_images(np.stack(reduced), half=True) if reduced else np.empty((0, 0), np.float32)
    own = [[place[text] for text in corpus.captions[row]] for row in rows]
    answers = torch.from_numpy(of_windows)
    return Targets(kept["scenes"], kept["captions"], kept["answers"], own, windows, answers, strangers.gather(foreign))


def follow(average: Run, run: Run, rate: float) -> None:
    """Move the averaged weights towards the run's."""
    pairs = zip(average.parameters(), run.parameters(), strict=True)
    moving = [(mean, value.detach()) for mean, value in pairs if value.requires_grad]
    with torch.no_grad():
        torch._foreach_lerp_([mean for mean, _ in moving], [value for _, value in moving], 1.0 - rate)


def train(
    folder: Path,
    work: Path,
    name: str,
    plan: ScalePlan,
    every: int,
    workers: int,
    folders: tuple[list[Path], list[Path]],
) -> dict[str, object]:
    """Run the plan, resuming `NAME.pt` when it exists, and return the last figures on valid.

    `folders` hold unlabelled ground and strangers.
    """
    corpus, checkpoint = load(work), Checkpoint(folder)
    targets = gather(checkpoint, corpus, work, *folders)
    scenes = targets.scenes
    run, average = Run(checkpoint), Run(Checkpoint(folder))
    optimiser = torch.optim.AdamW(group_parameters(run, plan), betas=(0.9, 0.98), fused=True)
    path, first = work / f"{name}.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        run.load_state_dict(saved["run"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    valid = corpus.rows("valid")[::3]
    best: dict[str, object] = {"step": first}
    if first == 0:
        print(
            json.dumps({"step": 0, **judge(average.vision, corpus.pixels[valid], corpus.scene[valid], scenes)}),
            flush=True,
        )
    began, total, seen = time.monotonic(), 0.0, 0
    pool = ThreadPoolExecutor(workers)
    whole_from = (1 - plan.all_tokens) * plan.steps
    for step, batch in enumerate(draw_batches(targets, corpus, plan, first), first):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * schedule(step, plan)
        share = plan.token_share if step < whole_from else 1.0
        halves = [Batch(*(tensor[number::workers] for tensor in batch)) for number in range(workers)]
        futures = [
            pool.submit(step_part, run, half, targets, plan, share, workers * step + number)
            for number, half in enumerate(halves)
        ]
        total += descend(run, [future.result() for future in futures])
        seen += 1
        optimiser.step()
        follow(average, run, min(plan.average, (step + 1) / (step + 10)))
        if step % 50 == 49:
            pace = (time.monotonic() - began) / (step + 1 - first)
            left = f"{plan.batch / pace:.0f} img/s, {pace * (plan.steps - step - 1) / 60:.0f} min left"
            print(f"step {step + 1}/{plan.steps} loss {total / seen:.3f} {left}", flush=True)
            total, seen = 0.0, 0
        if step % every == every - 1 or step == plan.steps - 1:
            best = {"step": step + 1, **judge(average.vision, corpus.pixels[valid], corpus.scene[valid], scenes)}
            print(json.dumps(best), flush=True)
            state = {"run": run.state_dict(), "average": average.state_dict()}
            save(path, {**state, "optimiser": optimiser.state_dict(), "step": step + 1})
    (work / f"{name}.json").write_text(json.dumps({"plan": asdict(plan), **best}))
    return best


def write(folder: Path, work: Path, name: str, out: Path, teacher_share: float) -> None:
    """Write the averaged weights of a run as a checkpoint, with all else as in `folder`; calibrate it afterwards.

    They are mixed with the teacher's: between the two, whole scenes are named better than by either (Wortsman et al.,
    "Robust fine-tuning of zero-shot models", 2022).
    """
    trained = torch.load(work / f"{name}.pt", weights_only=True)["average"]
    vision = {key.removeprefix("vision."): value for key, value in trained.items() if key.startswith("vision.")}
    fold_gains(vision)
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("decisions.json"), dirs_exist_ok=True)
    model = Checkpoint(folder).model
    teacher = model.vision_model.state_dict()
    mixed = {key: torch.lerp(value, teacher[key], teacher_share) for key, value in vision.items()}
    model.vision_model.load_state_dict(mixed)
    with torch.no_grad():
        model.logit_scale.fill_(float(trained["scores.scale"]))
        model.logit_bias.fill_(float(trained["scores.bias"]))
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)


def main() -> None:
    """Train the image tower on crops; run again to resume."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the trained checkpoint: teacher and start")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[], help="folders of PNG pictures of ground")
    parser.add_argument("--strangers", type=Path, nargs="*", default=[], help="folders of pictures of what no scene is")
    parser.add_argument("--name", default="scale")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--teacher-share", type=float, default=0.2, help="of the teacher's weights in what is written")
    parser.add_argument("--every", type=int, default=500, help="steps between measures on valid")
    parser.add_argument("--workers", type=int, default=2, help="parts of a batch done at once")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plan = ScalePlan()
    for pair in args.set:
        field, value = pair.split("=")
        plan = replace(plan, **{field: type(getattr(plan, field))(json.loads(value))})
    train(args.checkpoint, args.work, args.name, plan, args.every, args.workers, (args.unlabelled, args.strangers))
    write(args.checkpoint, args.work, args.name, args.out, args.teacher_share)


if __name__ == "__main__":
    main()
