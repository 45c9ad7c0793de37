"""Latency of the image tower: our engines and other libraries, in turns, with the same frames and weights."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.bench import floor
from overflight.bench.calibration_frames import calibration_frames
from overflight.bench.frames import FILM, take_frames
from overflight.bench.host import make_row, new_run
from overflight.bench.peak import AMOUNTS
from overflight.bench.processor_time import ProcessorTime
from overflight.bench.sample import SamplingPlan, take_turns
from overflight.bench.subject import Job, Subject
from overflight.runtime.bundle import Bundle, hash_file
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.paths import home
from overflight.runtime.store import Store, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.bench.frames import Frames
    from overflight.bench.row import Row, Setting
    from overflight.bench.sample import Report
    from overflight.bench.subject import Clock

# The peers by name, with what pip must install for each.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "flown": (),
    "transformers_torch": ("torch", "transformers"),
    "open_clip": ("open_clip_torch", "torch", "transformers"),
    "traced": ("onnxruntime", "onnx", "torch", "transformers"),
    "openvino_nncf": ("openvino", "nncf", "torch", "transformers"),
    "naive": ("torch", "transformers", "opencv-python"),
}
EVERY = (
    "transformers_torch:fp32",
    "transformers_torch:bf16",
    "transformers_torch:compiled",
    "open_clip:fp32",
    "traced:fp32",
    "traced:dynamic",
    "traced:static",
    "openvino_nncf:fp32",
    "openvino_nncf:nncf",
)
OURS = ("ours:fp32",)
INCLUDED = {
    "engine": "resized uint8 frames in, unit embeddings out; normalising included, reading and resizing not",
    "classify": "decoded 720p picture in, scores of all labels out; reading not included",
}


@dataclass(frozen=True)
class Field:
    """Which subjects run, and on what. ``bundle`` and ``checkpoint`` have the same weights."""

    bundle: Path
    subjects: Sequence[str]
    checkpoint: Path | None = None
    source: str = str(FILM)
    threads: int = 0
    batch: int = 1
    frames: int = 16
    labels: int = 45
    clock: Clock = "wall"


def measure(
    field: Field, plan: SamplingPlan, *, name: str = "engine", report: Report = lambda stage, share: None
) -> list[Row]:
    """Run all subjects in turns; return one row each, those that could not run with their reason.

    ``name`` is "engine" for the tower alone, "classify" for the whole way from the picture.
    """
    bundle = Bundle.open(field.bundle)
    frames = take_frames(field.source, bundle, field.frames)
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = _start(field, frames, scratch, stack, absent, report)
        calls: dict[str, Turn] = {}
        for title, subject in running.items():
            for call in subject.ready.calls:
                calls[title if call == "embed" else f"{title} {call}"] = Turn(subject, call)
        samples = take_turns(calls, plan, report)
        answers = {title: _answers(subject) for title, subject in running.items()} if name == "engine" else {}
        reference = next(
            (answers[title] for title in ("transformers_torch:fp32", "ours:fp32") if title in answers), None
        )
        run = new_run()
        rows = [
            _row(field, bundle, frames, name, run, title, calls[title], samples, answers.get(title), reference)
            for title in running
        ]
    model, included = bundle.manifest.name, INCLUDED[name]
    rows += [
        make_row(name, title, [], run=run, included=included, model=model, settings=_settings(field), reason=reason)
        for title, reason in absent.items()
    ]
    return rows


def _settings(field: Field) -> dict[str, Setting]:
    return {"batch": field.batch, "threads": field.threads, "clock": field.clock}


def proven(bundle: Bundle) -> tuple[str, ...]:
    """Name our engines of a bundle that may fly here: the reference, and what was built and found faithful."""
    built = {
        f"ours:{entry.record.target}-{entry.record.precision}"
        for entry in Store(bundle).entries()
        if refusal(entry.record) is None
    }
    return (*OURS, *sorted(built - {"ours:onnxruntime-cpu-fp32"}))


def flying(bundle: Bundle) -> tuple[str, ...]:
    """Name the reference, and the engine that a flight would open here where that is another one."""
    entry = Store(bundle).default()
    if entry is None or refusal(entry.record) is not None:
        return OURS
    return (*OURS, f"ours:{entry.record.target}-{entry.record.precision}")


def groups(at_once: int, ours: tuple[str, ...] = OURS) -> list[tuple[str, tuple[str, ...]]]:
    """Divide all peers into groups of at most ``at_once``, each with the baseline and ours; then whole pictures."""
    peers = [title for title in EVERY if title != EVERY[0]]
    parts = [peers[start : start + at_once] for start in range(0, len(peers), at_once)]
    towers = [("engine", (EVERY[0], *ours, *part)) for part in parts]
    return [*towers, ("classify", ("naive:fp32", "flown:fp32"))]


class Turn:
    """One call of one subject, on the next frame each time; ``used`` adds up the processor time it got."""

    def __init__(self, subject: Subject, call: str) -> None:
        self.subject, self._call, self._frame = subject, call, 0
        self.used = ProcessorTime()

    def __call__(self) -> int:
        """Make the call; return the nanoseconds it took."""
        self._frame += 1
        took = self.subject.turn(self._call, self._frame)
        self.used.add(took.wall_ns, took.cpu_ns, took.waited_ns)
        return took.ns


def _start(
    field: Field, frames: Frames, scratch: Path, stack: ExitStack, absent: dict[str, str], report: Report
) -> dict[str, Subject]:
    np.save(scratch / "frames.npy", frames.resized)
    np.save(scratch / "pictures.npy", frames.pictures)
    calibration = _save_calibration(field, scratch)
    kept = home() / "peers" / "graphs"
    kept.mkdir(parents=True, exist_ok=True)
    running = {}
    for number, title in enumerate(field.subjects):
        report(f"loading {title}", number / len(field.subjects))
        peer, _, variant = title.partition(":")
        if peer not in REQUIREMENTS:
            raise UsageError(f"{title}: no such subject; expected PEER:VARIANT of {', '.join(REQUIREMENTS)}")
        job = Job(
            peer,
            variant,
            str(field.checkpoint or ""),
            str(field.bundle.resolve()),
            str(scratch / "frames.npy"),
            str(scratch / "pictures.npy"),
            tuple(f"an aerial photograph of scene {number}" for number in range(field.labels)),
            field.threads,
            str(kept),
            field.batch,
            field.clock,
            calibration,
        )
        try:
            if field.checkpoint is None and peer not in ("ours", "flown"):
                raise UsageError("no checkpoint was given; name the one that the bundle was made from: --checkpoint")
            subject = Subject(job, requirements=REQUIREMENTS[peer])
        except OverflightError as error:
            absent[title] = str(error)
        else:
            running[title] = stack.enter_context(subject)
    if not running:
        raise OverflightError(f"nothing could run: {'; '.join(f'{name}: {why}' for name, why in absent.items())}")
    return running


def _save_calibration(field: Field, scratch: Path) -> str:
    """Keep the frames that the bundle was calibrated with where a subject calibrates itself; "" where none are."""
    if not any(title.endswith((":nncf", ":static")) for title in field.subjects):
        return ""
    frames = calibration_frames(Bundle.open(field.bundle))
    if frames is None:
        return ""
    path = scratch / "calibration.npy"
    np.save(path, frames)
    return str(path)


def _answers(subject: Subject) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    path = subject.answers()
    answers: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.load(path)
    path.unlink()
    return answers


def _row(
    field: Field,
    bundle: Bundle,
    frames: Frames,
    name: str,
    run: str,
    title: str,
    turn: Turn,
    samples: dict[str, list[int]],
    answers: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None,
    reference: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None,
) -> Row:
    subject = turn.subject
    memory = subject.memory()
    settings = {**_settings(field), "source": frames.name, "side": bundle.manifest.resize.side}
    if subject.ready.note:
        settings["note"] = subject.ready.note
    figures = {
        "load_ns": float(subject.ready.load_ns),
        "first_ns": float(subject.ready.first_ns),
        "peak_bytes": float(memory.peak_bytes),
        "resident_bytes": float(memory.resident_bytes),
        **turn.used.figures(field.threads),
    }
    if answers is not None and reference is not None:
        figures["cosine_mean"] = float((answers * reference).sum(axis=1).mean())
        figures["cosine_min"] = float((answers * reference).sum(axis=1).min())
    peaks = {kind: samples[key] for kind in AMOUNTS if (key := f"{title} peak {kind}") in samples}
    graph = Path(subject.ready.graph) if subject.ready.graph else None
    hashes = {"bundle": bundle.sha256, "tower": bundle.manifest.tower, "frames": frames.sha256}
    if graph is not None:
        hashes["graph"] = hash_file(graph)
    return make_row(
        name,
        title,
        samples[title],
        run=run,
        included=INCLUDED[name],
        model=bundle.manifest.name,
        settings=settings,
        versions=subject.ready.versions,
        hashes=hashes,
        figures=figures,
        floor=floor.floor_of(floor.count(graph, field.batch), samples[title], peaks, AMOUNTS)
        if peaks and graph
        else None,
    )
