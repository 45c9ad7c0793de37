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
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from overflight.models import augment, forward, objective
from overflight.models.corpus import load
from overflight.models.distil import save
from overflight.models.reading import Checkpoint, normalise, spread
from overflight.models.scale_data import NOTHING, UNLABELLED, Batch, ScalePlan, Targets, draw_batches, gather
from overflight.models.towers import Shape, convert_backbone, fold_gains, read_backbone
from overflight.station.evaluate.corruptions import crop

PARTS = (1.0, 0.5, 0.25)  # of a side, as `overflight evaluate --task scale` crops


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
