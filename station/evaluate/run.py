"""An evaluation: the tasks that a data set allows, each by its protocol, into one table."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from overflight import __version__
from overflight.export.prompts import read_templates
from overflight.runtime.errors import UsageError
from overflight.station.evaluate import classify, corruptions, open_set
from overflight.station.evaluate.adapters import published
from overflight.station.evaluate.boxes import without_copies
from overflight.station.evaluate.caption_scores import caption_scores
from overflight.station.evaluate.embedding import Embeddings
from overflight.station.evaluate.retrieval import as_queries, retrieval
from overflight.station.evaluate.table import SCHEMA, Evaluation, Published, Row, row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.progress import Report
    from overflight.station.evaluate.datasets import Dataset, Picture

CLASS_TASKS = ("zero-shot", "linear-probe", "knn", "few-shot", "corruptions", "open-set", "calibration", "scale")
CAPTION_TASKS = ("retrieval", "captions")


@dataclass
class _Run:
    """What the tasks share: the pictures, the class texts, and embeddings that are made once."""

    dataset: Dataset
    split: str
    forms: tuple[str, ...]
    embeddings: Embeddings
    predictions: Mapping[str, str] | None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pictures = self.dataset.of_split(self.split)
        self.truth = np.array([one.label for one in self.pictures], np.int64)
        self.vectors = self.embeddings.pictures([one.path for one in self.pictures])
        self._classes: NDArray[np.float32] | None = None
        self._train: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    @property
    def classes(self) -> NDArray[np.float32]:
        """The class texts ``[K, D]``."""
        if self._classes is None:
            self._classes = self.embeddings.classes(self.dataset.classes, self.forms)
        return self._classes

    @property
    def train(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Embeddings and labels of the training split, without pictures that look like one of the test split."""
        if self._train is None:
            given = self.dataset.of_split("train")
            paths = [one.path for one in given]
            kept, copies = without_copies(paths, [one.path for one in self.pictures], within=False)
            if copies:
                self.notes.append(f"{len(copies)} training pictures that look like a {self.split} picture are left out")
            left = set(kept)
            labels = np.array([one.label for one in given if one.path in left], np.int64)
            self._train = self.embeddings.pictures(kept, name="training pictures"), labels
        return self._train


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    tasks: Sequence[str],
    *,
    report: Report,
    split: str = "test",
    templates: str = "remoteclip",
    cache: Path | None = None,
    predictions: Mapping[str, str] | None = None,
    threads: int = 0,
) -> Evaluation:
    """Run tasks on a split; without tasks, all that the data set allows.

    ``predictions`` are captions by file name for the task ``captions``. Raises UsageError for a task that the data set
    does not allow.
    """
    chosen = _allowed(dataset, tasks, split)
    forms = read_templates(templates).forms
    with Embeddings(bundle, cache, report, threads) as embeddings:
        run = _Run(dataset, split, forms, embeddings, predictions)
        rows = [one for task in chosen for one in _TASKS[task](run)]
        if any(published(task, dataset.name) for task in chosen):
            run.notes.append(
                "published rows are of their own splits and prompts: equal protocols alone can be compared"
            )
        prompts = tuple(form.replace("{}", name) for name in dataset.classes for form in forms)
        return Evaluation(
            schema=SCHEMA,
            model=bundle.manifest.name,
            bundle_sha256=bundle.sha256,
            tower=bundle.manifest.tower,
            engine=embeddings.engine,
            dataset=dataset.name,
            layout=dataset.layout,
            dataset_sha256=dataset.sha256(split),
            split=split,
            split_protocol=dataset.protocol,
            pictures=len(run.pictures),
            left_out=dataset.left_out,
            templates=templates,
            prompts=prompts,
            rows=tuple(rows),
            published=tuple(
                Published(task, one.model, one.value / 100, one.source)
                for task in chosen
                for one in published(task, dataset.name)
            ),
            notes=tuple(run.notes),
            versions={"overflight": __version__, "python": platform.python_version(), "numpy": np.__version__},
        )


def _allowed(dataset: Dataset, tasks: Sequence[str], split: str) -> list[str]:
    pictures = dataset.of_split(split)
    allowed = list(CLASS_TASKS) if dataset.classes else []
    if dataset.classes and not any(one.split == "train" for one in dataset.pictures):
        allowed = [task for task in allowed if task not in {"linear-probe", "knn", "few-shot"}]
    if any(one.captions for one in pictures):
        allowed += CAPTION_TASKS if all(one.after is None for one in pictures) else ["captions"]
    refused = [task for task in tasks if task not in allowed]
    if refused:
        raise UsageError(f"{dataset.name}: no {', '.join(refused)} with this data set; it allows {', '.join(allowed)}")
    return list(tasks) or allowed


def _zero_shot(run: _Run) -> list[Row]:
    found = classify.zero_shot(run.vectors, run.classes, run.truth)
    return [row("zero-shot", "top-1", found, "mean of normalised prompts, nearest class")]


def _linear(run: _Run) -> list[Row]:
    found, c = classify.linear_probe(*run.train, run.vectors, run.truth)
    return [row("linear-probe", "top-1", found, f"logistic regression, C = {c:g} by CLIP's search", "seed 0")]


def _knn(run: _Run) -> list[Row]:
    found = classify.neighbours(*run.train, run.vectors, run.truth)
    return [row("knn", "top-1", found, "20 neighbours, weights exp(cosine / 0.07)")]


def _few(run: _Run) -> list[Row]:
    shots = classify.few_shot(*run.train, run.vectors, run.truth)
    protocol = "logistic regression, C = 1, mean of 5 draws"
    return [
        row("few-shot", f"top-1, {shot} a class", found, protocol, f"seeds {1000 * shot} to {1000 * shot + 4}")
        for shot, found in shots.items()
    ]


def _altered(run: _Run, task: str, changes: Mapping[str, corruptions.Corruption]) -> list[Row]:
    rows = [row(task, "as it is", classify.zero_shot(run.vectors, run.classes, run.truth), "zero-shot top-1")]
    paths = [one.path for one in run.pictures]
    for name, change in changes.items():
        found = classify.zero_shot(run.embeddings.pictures(paths, change, name), run.classes, run.truth)
        rows.append(row(task, name, found, "zero-shot top-1"))
    return rows


def _open_set(run: _Run) -> list[Row]:
    found = open_set.open_set(run.vectors, run.classes, run.truth)
    left_out = ", ".join(run.dataset.classes[::5])
    return [row("open-set", name, one, f"classes without a text: {left_out}") for name, one in found.items()]


def _calibration(run: _Run) -> list[Row]:
    manifest = run.embeddings.bundle.manifest
    found = open_set.calibration(
        run.vectors, run.classes, run.truth, float(np.exp(manifest.logit_scale)), manifest.logit_bias
    )
    return [row("calibration", name, one, "15 bins of equal width") for name, one in found.items()]


def _retrieval(run: _Run) -> list[Row]:
    texts, owner = as_queries([one.captions for one in run.pictures])
    found = retrieval(run.vectors, run.embeddings.texts(texts), owner)
    protocol = "RemoteCLIP: raw captions, capitalised, one hit is enough"
    return [row("retrieval", name, one, protocol) for name, one in found.items()]


def _captions(run: _Run) -> list[Row]:
    """Score given captions, or the sentence that a template makes of the best class."""
    given, protocol = run.predictions, "given captions"
    if given is None:
        if not run.dataset.classes:
            raise UsageError("captions: no class names to make sentences of; give captions with --captions FILE.jsonl")
        best = (run.vectors @ run.classes.T).argmax(axis=1)
        given = {
            str(one.path): f"this is a {run.dataset.classes[k]}." for one, k in zip(run.pictures, best, strict=True)
        }
        protocol = "a template with the best class, not a caption model"
    rows = []
    for name, some in _by_change(run.pictures):
        wanted = {str(one.path): one.captions for one in some}
        scores = caption_scores(wanted, {path: _given(given, path) for path in wanted})
        rows += [
            Row("captions", f"{measure}{name}", value, None, None, len(some), protocol)
            for measure, value in scores.items()
        ]
    return rows


def _given(captions: Mapping[str, str], path: str) -> str:
    for name in (path, path.rpartition("/")[2]):
        if name in captions:
            return captions[name]
    raise UsageError(f"captions: none for {path}; expected one for each picture of the split")


def _by_change(pictures: Sequence[Picture]) -> list[tuple[str, list[Picture]]]:
    """Return all pictures, and of change pairs those with and without a change."""
    parts = [("", list(pictures))]
    for name, changed in ((", changed", True), (", unchanged", False)):
        if some := [one for one in pictures if one.changed is changed]:
            parts.append((name, some))
    return parts


_TASKS: dict[str, Callable[[_Run], list[Row]]] = {
    "zero-shot": _zero_shot,
    "linear-probe": _linear,
    "knn": _knn,
    "few-shot": _few,
    "corruptions": lambda run: _altered(run, "corruptions", corruptions.CORRUPTIONS),
    "scale": lambda run: _altered(run, "scale", corruptions.SCALES),
    "open-set": _open_set,
    "calibration": _calibration,
    "retrieval": _retrieval,
    "captions": _captions,
}
