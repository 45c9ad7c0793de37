"""Pictures for fine-tuning: a folder per class, or a list of captions, divided into training and hold-out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.evaluation.duplicates import SAME, difference_hash, distance
from overflight.runtime.resize import Resizer
from overflight.runtime.sources.image import SUFFIXES, read_image
from overflight.station.evaluate.datasets import class_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Resize

LISTS = ("captions.jsonl", "captions.json")
FEWEST_HELD_OUT = 10  # below it the before and after say nothing


@dataclass(frozen=True)
class Picture:
    """One picture with the texts that are true of it: its class, or its captions."""

    path: Path
    texts: tuple[str, ...]


@dataclass
class Pictures:
    """Frames uint8 ``[N, S, S, 3]`` as the tower sees them, each with the rows of ``texts`` that are true of it."""

    texts: list[str]
    frames: NDArray[np.uint8]
    true: list[list[int]]
    training: NDArray[np.int64]
    holdout: NDArray[np.int64]
    left_out: dict[str, int] = field(default_factory=dict)

    def positive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return ``[len(rows), K]``: which texts are true of which picture."""
        found = np.zeros((len(rows), len(self.texts)), np.bool_)
        for place, row in enumerate(rows):
            found[place, self.true[row]] = True
        return found


def list_pictures(data: Path) -> tuple[list[Picture], bool]:
    """List the pictures of a folder, and say whether they have captions (else classes).

    ``captions.jsonl`` has rows ``{"file": …, "captions": […]}`` with paths relative to it. Without one, every folder
    with pictures is a class. Raises UsageError for neither.
    """
    listed = next((data / name for name in LISTS if (data / name).is_file()), data if data.is_file() else None)
    if listed is not None:
        return list(_read_captions(listed)), True
    if not data.is_dir():
        raise UsageError(f"{data}: not there; expected a folder with one folder per class, or with {LISTS[0]}")
    found = [path for path in sorted(data.rglob("*")) if path.suffix.lower() in SUFFIXES and path.parent != data]
    classes = {path.parent.name for path in found}
    if len(classes) < 2:
        raise UsageError(
            f"{data}: pictures in {len(classes)} folder(s); expected a folder per class, two at least, or {LISTS[0]}"
        )
    return [Picture(path, (class_name(path.parent.name),)) for path in found], False


def _read_captions(listed: Path) -> list[Picture]:
    pictures = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, object])
            texts = row["captions"] if "captions" in row else [row["caption"]]
            name = row["file"] if "file" in row else row["image"]
        except (msgspec.DecodeError, KeyError) as error:
            raise UsageError(f'{listed}:{number}: expected {{"file": …, "captions": […]}}, got {error}') from error
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise UsageError(f"{listed}:{number}: expected one caption or more as text")
        pictures.append(Picture(listed.parent / str(name), tuple(dict.fromkeys(texts))))
    if not pictures:
        raise UsageError(f'{listed}: no picture; expected rows of {{"file": …, "captions": […]}}')
    return pictures


def read_pictures(listed: Sequence[Picture], resize: Resize, share: float, seed: int) -> Pictures:
    """Read the pictures as in flight, and hold out a ``share`` of every class (of all, where each text is rare).

    Training pictures that look like a held-out one are left out: copies would make the hold-out easy. Raises UsageError
    where too little is left to measure.
    """
    resizer, left_out = Resizer(resize), {"unreadable": 0, "like a held-out picture": 0}
    frames, kept = [], []
    for one in listed:
        frame = np.empty((resizer.side, resizer.side, 3), np.uint8)
        try:
            found = read_image(one.path)
            resizer.resize(found.picture, frame, found.order)
        except SourceError:
            left_out["unreadable"] += 1
            continue
        frames.append(frame)
        kept.append(one)
    texts = sorted({text for one in kept for text in one.texts})
    row = {text: place for place, text in enumerate(texts)}
    true = [[row[text] for text in one.texts] for one in kept]
    holdout = _hold_out([one.texts[0] for one in kept], share, seed)
    if len(holdout) < FEWEST_HELD_OUT:
        raise UsageError(
            f"{len(kept)} readable pictures leave {len(holdout)} to measure on, at least {FEWEST_HELD_OUT} are needed: "
            "add pictures, or hold out more with --holdout"
        )
    pixels = np.stack(frames)
    training = _unlike(pixels, np.setdiff1d(np.arange(len(kept)), holdout), holdout)
    left_out["like a held-out picture"] = len(kept) - len(holdout) - len(training)
    if not len(training):
        raise UsageError("nothing is left to train on: every picture is held out, or looks like one that is")
    return Pictures(texts, pixels, true, training, holdout, left_out)


def _hold_out(first: Sequence[str], share: float, seed: int) -> NDArray[np.int64]:
    """Draw a share of every group of equal first texts; groups of one picture are drawn from together."""
    draw = np.random.default_rng(seed)
    names, counts = np.unique(first, return_counts=True)
    alone = set(names[counts == 1])
    groups = np.array(["" if text in alone else text for text in first])
    chosen = []
    for name in np.unique(groups):
        rows = draw.permutation(np.flatnonzero(groups == name))
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def _unlike(frames: NDArray[np.uint8], rows: NDArray[np.int64], holdout: NDArray[np.int64]) -> NDArray[np.int64]:
    known = np.array([difference_hash(frames[row]) for row in holdout], np.uint64)
    return np.array(
        [row for row in rows if not (distance(difference_hash(frames[row]), known) <= SAME).any()], np.int64
    )
