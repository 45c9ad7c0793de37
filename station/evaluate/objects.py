"""Counting and localisation on pictures with boxes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from overflight.export.prompts import read_templates
from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import UsageError
from overflight.station.evaluate.boxes import Boxed, read_coco, read_yolo
from overflight.station.evaluate.counting import CAPTION, count_captions, counting
from overflight.station.evaluate.embedding import Embeddings
from overflight.station.evaluate.localise import GRID, localisation
from overflight.station.evaluate.table import SCHEMA, Evaluation, Row, row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.progress import Report

TASKS = ("counting", "localisation")
NAMES = "classes.txt"


def holds_boxes(path: Path) -> bool:
    """Whether a path is a COCO instances file, or a folder of pictures with YOLO boxes."""
    if path.is_file() and path.suffix == ".json":
        try:
            return "annotations" in json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, RecursionError):
            return False
    return path.is_dir() and any(one.with_suffix(".txt").is_file() for one in path.glob("*.jpg"))


def open_boxes(path: Path, thing: str | None) -> list[Boxed]:
    """Open pictures with boxes; the classes of YOLO files are in ``classes.txt``, or all of them are ``thing``."""
    if path.is_file():
        folder = path.parent / "images"
        return read_coco(path, folder if folder.is_dir() else path.parent)
    if (path / NAMES).is_file():
        return read_yolo(path, (path / NAMES).read_text(encoding="utf-8").split("\n"))
    if thing is None:
        raise UsageError(f"{path}: no {NAMES}; name the class of the boxes with --object")
    return read_yolo(path, [thing] * 1000)


def evaluate_objects(
    bundle: Bundle, path: Path, tasks: Sequence[str], *, thing: str | None, templates: str, report: Report
) -> Evaluation:
    """Count and localise one class of objects. Raises UsageError where no picture shows it, or for another task."""
    if refused := [task for task in tasks if task not in TASKS]:
        raise UsageError(f"{path}: no {', '.join(refused)} with boxes; it allows {', '.join(TASKS)}")
    pictures = open_boxes(path, thing)
    kinds = sorted({box.name for picture in pictures for box in picture.boxes})
    chosen = thing or (kinds[0] if len(kinds) == 1 else "")
    if chosen not in kinds:
        raise UsageError(f"{path}: choose the class with --object; there are {', '.join(kinds) or 'no boxes'}")
    shown = [one for one in pictures if any(box.name == chosen for box in one.boxes)]
    prompt = read_templates(templates).forms[0]
    rows: list[Row] = []
    with Embeddings(bundle, None, report) as embeddings:
        if not tasks or "counting" in tasks:
            rows += _counted(shown, chosen, embeddings)
        if not tasks or "localisation" in tasks:
            found = localisation(shown, chosen, prompt, embeddings)
            protocol = f"tiles {GRID[0]} x {GRID[1]}, cosine one deviation above the picture's mean"
            rows += [row("localisation", name, one, protocol, "seed 0") for name, one in found.items()]
        digest = hashlib.sha256("".join(hash_file(one.path) + str(one.boxes) for one in shown).encode())
        return Evaluation(
            SCHEMA, bundle.manifest.name, bundle.sha256, bundle.manifest.tower, embeddings.engine, path.name, "boxes",
            digest.hexdigest(), "all", "every picture that shows the object", len(shown), len(pictures) - len(shown),
            templates, (prompt.replace("{}", chosen),), tuple(rows),
        )  # fmt: skip


def _counted(shown: Sequence[Boxed], thing: str, embeddings: Embeddings) -> list[Row]:
    counts = [(one.path, sum(box.name == thing for box in one.boxes)) for one in shown]
    few = [(path, count) for path, count in counts if 1 <= count <= 10]
    if not few:
        raise UsageError(f"counting: no picture shows one to ten of {thing}")
    vectors = embeddings.pictures([path for path, _ in few])
    found, _ = counting(vectors, count_captions([count for _, count in few], thing), embeddings)
    protocol = (
        f'RemoteCount: "{CAPTION.format(number="one … ten", thing=thing)}", {len(counts) - len(few)} above ten left out'
    )
    return [row("counting", name, one, protocol) for name, one in found.items()]
