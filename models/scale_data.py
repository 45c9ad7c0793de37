"""What training on crops sees: crops of scenes, windows of unlabelled ground, strangers, and what each is held to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from overflight.models import augment, strangers
from overflight.models.corpus import SOURCE_PX, Corpus
from overflight.models.nothing import KINDS
from overflight.models.scenes import TRAINING_TEMPLATES, name_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overflight.models.augment import Strength
    from overflight.models.reading import Checkpoint

NOTHING, UNLABELLED = -1, -2
WINDOW = 1000  # pixels of a mosaic of 0.1 m: with 100 m the teacher sees about what its scenes show
WINDOWS = 60  # of each large picture


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
