"""Fine-tune the image tower of a supported checkpoint on pictures of your own, and write a checkpoint that exports.

    python -m overflight.models.finetune CHECKPOINT DATA --out TUNED

DATA is a folder with one folder of pictures per class, or with ``captions.jsonl``. The last blocks are trained, or a
low-rank change of every block with ``--lora RANK``. The text tower is not trained, so label texts keep their meaning.
Some pictures are held out: the exported engines are measured on them before and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.export.assemble import export
from overflight.export.checkpoint import Checkpoint, Reading
from overflight.export.describe import describe
from overflight.export.encode import TextEncoder
from overflight.export.prompts import DEFAULT, read_templates, template_names
from overflight.export.statistics import wilson
from overflight.models.finetune_data import Pictures, list_pictures, read_pictures
from overflight.models.measures import recall
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.runtime.evaluation.fidelity import embed_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from overflight.export.tower import Pixels
    from overflight.models.finetune_tower import Tower
    from overflight.runtime.bundle import Bundle

    Vectors = NDArray[np.float32]

_WARM_SHARE = 0.1
_SHARPEST = 30.0  # of the softmax: CLIP's own factor of 100 leaves a small batch without a gradient
_LEAST_CROP = 0.7  # of a side
_LIGHT = 0.2


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run. ``lora`` 0 trains the last ``blocks``, else low-rank changes of all blocks."""

    blocks: int = 2
    lora: int = 0
    epochs: int = 4
    batch: int = 32
    rate: float = 0.0
    holdout: float = 0.2
    seed: int = 0
    templates: str = DEFAULT

    @property
    def top_rate(self) -> float:
        """The learning rate: the given one, or what suits the kind of training."""
        return self.rate or (5e-4 if self.lora else 2e-5)


class Accuracy(NamedTuple):
    """How many held-out pictures are nearest to a text that is true of them, with the 95 % interval of the share."""

    right: int
    pictures: int
    least: float
    most: float
    of_five: float

    @classmethod
    def of(cls, images: Vectors, bank: Vectors, positive: NDArray[np.bool_]) -> Accuracy:
        """Measure unit ``images`` ``[N, D]`` against a ``bank`` ``[K, D]``; ``positive`` ``[N, K]`` is the truth."""
        scores = images @ bank.T
        right = int(positive[np.arange(len(scores)), scores.argmax(axis=1)].sum())
        return cls(right, len(scores), *wilson(right, len(scores)), recall(scores, positive, min(5, len(bank))))

    def __str__(self) -> str:
        share = (
            f"{self.right / self.pictures:.1%} ({self.least:.1%} to {self.most:.1%}, {self.right} of {self.pictures})"
        )
        return f"{share}, a true text among the five nearest {self.of_five:.1%}"


def finetune(
    source: Path,
    data: Path,
    out: Path,
    plan: Plan,
    *,
    reading: Reading | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> tuple[Accuracy, Accuracy]:
    """Train, write the checkpoint to ``out``, and return the accuracy on the hold-out before and after.

    Raises UsageError for a checkpoint, data or plan that cannot be used, MissingError without torch or transformers.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already; name a new folder")
    tower_of = _load_towers()
    opened = Checkpoint.open(source, reading or Reading())
    pixels = describe(opened).image.pixels
    listed, captioned = list_pictures(data)
    with tempfile.TemporaryDirectory(prefix="overflight-") as scratch:
        base = export(source, Path(scratch) / "before", reading=reading or Reading())
        pictures = read_pictures(listed, base.manifest.resize, plan.holdout, plan.seed)
        report(_describe(pictures))
        bank = _embed_texts(base, pictures.texts, "plain" if captioned else plan.templates)
        before = _measure(base, pictures, bank)
        report(f"before: {before}")
        tower = tower_of(opened, device)
        _train(tower, pictures, bank, base, pixels, plan, report)
        tuned = tower.write(out)
        after = _measure(export(tuned, Path(scratch) / "after", reading=reading or Reading()), pictures, bank)
    report(f"after:  {after}")
    kept = {"plan": asdict(plan), "data": str(data), "before": before._asdict(), "after": after._asdict()}
    (out / "finetune.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return before, after


def _load_towers() -> type[Tower]:
    try:
        from overflight.models.finetune_tower import Tower
    except ImportError as error:
        raise MissingError(
            f"fine-tuning needs torch and transformers ({error}); run: pip install 'overflight[torch]'"
        ) from error
    return Tower


def _describe(pictures: Pictures) -> str:
    left_out = ", ".join(f"{count} {why}" for why, count in pictures.left_out.items() if count)
    return (
        f"{len(pictures.training)} pictures to train on, {len(pictures.holdout)} held out, "
        f"{len(pictures.texts)} texts; left out: {left_out or 'none'}"
    )


def _embed_texts(bundle: Bundle, texts: list[str], templates: str) -> Vectors:
    """Return the unit mean of each text's prompts ``[K, D]``."""
    forms = read_templates(templates)
    prompts = [forms.fill(text) for text in texts]
    with TextEncoder(bundle) as encoder:
        vectors = encoder.encode([prompt for filled in prompts for prompt in filled])
    parts = np.split(vectors, np.cumsum([len(filled) for filled in prompts])[:-1])
    means = np.stack([part.mean(axis=0) for part in parts])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def _measure(bundle: Bundle, pictures: Pictures, bank: Vectors) -> Accuracy:
    engine = open_reference(bundle)
    try:
        images = embed_all(engine, pictures.frames[pictures.holdout])
    finally:
        engine.close()
    return Accuracy.of(images, bank, pictures.positive(pictures.holdout))


def _train(
    tower: Tower,
    pictures: Pictures,
    bank: Vectors,
    bundle: Bundle,
    pixels: Pixels,
    plan: Plan,
    report: Callable[[str], None],
) -> None:
    import torch

    torch.manual_seed(plan.seed)
    free = tower.lower_ranks(plan.lora) if plan.lora else tower.free_blocks(plan.blocks)
    optimiser = torch.optim.AdamW(free, lr=plan.top_rate, weight_decay=0.0 if plan.lora else 0.05)
    draw = np.random.default_rng(plan.seed)
    per_epoch = max(1, len(pictures.training) // plan.batch)
    steps, began = per_epoch * plan.epochs, time.monotonic()
    texts = torch.from_numpy(bank).to(tower.device)
    manifest = bundle.manifest
    sharpness = min(float(np.exp(manifest.logit_scale)), _SHARPEST)
    for epoch in range(plan.epochs):
        order, total = draw.permutation(pictures.training), 0.0
        for place in range(per_epoch):
            step = epoch * per_epoch + place
            for group in optimiser.param_groups:
                group["lr"] = plan.top_rate * _factor(step, steps)
            rows = order[place * plan.batch : (place + 1) * plan.batch]
            images = tower.embed(_views(pictures.frames[rows], pixels, draw).to(tower.device))
            loss = _lose(images, texts, torch.from_numpy(pictures.positive(rows)).to(tower.device), sharpness)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(free, 1.0)
            optimiser.step()
            total += loss.item()
        pace = (epoch + 1) * per_epoch * plan.batch / (time.monotonic() - began)
        report(f"epoch {epoch + 1} of {plan.epochs}: loss {total / per_epoch:.3f}, {pace:.0f} pictures a second")


def _factor(step: int, steps: int) -> float:
    """Warm up over a tenth, then fall along a cosine."""
    warm = max(1.0, _WARM_SHARE * steps)
    return float(min(1.0, (step + 1) / warm) * (0.5 + 0.5 * np.cos(np.pi * step / steps)))


def _lose(images: Tensor, texts: Tensor, positive: Tensor, sharpness: float) -> Tensor:
    """Return the softmax loss of each picture against all texts, any true one counting."""
    logits = sharpness * images @ texts.T
    return (logits.logsumexp(1) - logits.masked_fill(~positive, -np.inf).logsumexp(1)).mean()


def _views(frames: NDArray[np.uint8], pixels: Pixels, draw: np.random.Generator) -> Tensor:
    """Return normalised pixels ``[N, 3, S, S]`` of frames that are cropped, turned, mirrored and lit otherwise."""
    import torch
    from torch.nn import functional

    side, views = frames.shape[1], []
    for frame in frames:
        kept = round(side * draw.uniform(_LEAST_CROP, 1.0))
        top, left = draw.integers(side - kept + 1, size=2)
        turned = np.rot90(frame[top : top + kept, left : left + kept], int(draw.integers(4)))
        view = torch.from_numpy(np.ascontiguousarray(turned[:, :: 1 if draw.random() < 0.5 else -1])).float()
        view = view * draw.uniform(1 - _LIGHT, 1 + _LIGHT)
        chosen = view.permute(2, 0, 1)[None]
        views.append(functional.interpolate(chosen, (side, side), mode="bilinear", antialias=True))
    mean, std = (torch.tensor(values)[:, None, None] for values in (pixels.mean, pixels.std))
    return (torch.cat(views).clamp(0, 255) * pixels.rescale - mean) / std


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a directory or file that overflight export reads")
    parser.add_argument("data", type=Path, help="a folder per class, or captions.jsonl with its pictures")
    parser.add_argument("--out", type=Path, required=True, help="the new checkpoint")
    parser.add_argument("--blocks", type=int, default=plan.blocks, help="last blocks to train")
    parser.add_argument("--lora", type=int, default=plan.lora, metavar="RANK", help="train low-rank changes instead")
    parser.add_argument("--epochs", type=int, default=plan.epochs)
    parser.add_argument("--batch", type=int, default=plan.batch)
    parser.add_argument("--rate", type=float, default=plan.rate, help="learning rate; 2e-5, with --lora 5e-4")
    parser.add_argument("--holdout", type=float, default=plan.holdout, help="share of the pictures to measure on")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--templates", choices=template_names(), default=plan.templates, help="prompts of class names")
    parser.add_argument("--like", help="architecture of a bare file of weights")
    parser.add_argument("--tokenizer", type=Path, help="directory of the tokenizer files of a bare file")
    parser.add_argument("--device", default="cpu", help="as torch names it, for instance cuda")
    given = vars(parser.parse_args(arguments))
    names = ("checkpoint", "data", "out", "like", "tokenizer", "device")
    source, data, out, like, tokenizer, device = (given.pop(name) for name in names)
    try:
        _check(Plan(**given))
        before, after = finetune(
            source, data, out, Plan(**given), reading=Reading(like=like, tokenizer=tokenizer), device=device
        )
    except OverflightError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{out}: {after.right - before.right:+d} of {after.pictures} held-out pictures; overflight export {out} BUNDLE"
    )
    return 0


def _check(plan: Plan) -> None:
    for name, least in (("blocks", 1), ("lora", 0), ("epochs", 1), ("batch", 2)):
        if getattr(plan, name) < least:
            raise UsageError(f"--{name} {getattr(plan, name)}: expected {least} or more")
    if not 0 < plan.holdout < 1:
        raise UsageError(f"--holdout {plan.holdout:g}: expected a share between 0 and 1")
    if plan.rate < 0:
        raise UsageError(f"--rate {plan.rate:g}: expected more than 0")


if __name__ == "__main__":
    sys.exit(main())
