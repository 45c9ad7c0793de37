"""Building: every engine that this machine can run, proven on real frames, timed side by side; the fastest flies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.export.candidate_plan import make_plan
from overflight.export.candidates import DEFAULT_PLANS, Candidate, PlanChoice, find_candidates
from overflight.export.derive import derive
from overflight.export.diagnose import blame
from overflight.export.timing import time_engines
from overflight.runtime.bundle import hash_file
from overflight.runtime.engines import device_name, open_reference, versions
from overflight.runtime.engines.record import EngineRecord, Timing
from overflight.runtime.errors import EngineError, OverflightError
from overflight.runtime.evaluation.fidelity import embed_parts, failed, judge, measure
from overflight.runtime.progress import Report, unreported
from overflight.runtime.store import SCHEMA, Store, StoredEngine, open_entry, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine, Target
    from overflight.runtime.engines.record import FidelityVerdict
    from overflight.runtime.evaluation.holdout import HeldOut


class CandidateResult(msgspec.Struct, frozen=True):
    """One line of what a build found."""

    title: str
    status: Literal["default", "proven", "failed", "absent", "torch"]
    reason: str = ""
    record: EngineRecord | None = None
    timing: Timing | None = None


class Built(msgspec.Struct, frozen=True):
    """What a build found on this machine, the fastest proven engine first."""

    bundle: str
    model: str
    device: str
    frames: str
    samples: int
    overlapping: int
    rows: tuple[CandidateResult, ...]


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every candidate is held against."""

    bundle: Bundle
    store: Store
    held: HeldOut
    reference: NDArray[np.float32]
    banks: Sequence[LabelBank]


def build(
    bundle: Bundle,
    held: HeldOut,
    *,
    target: Target | Literal["auto"] = "auto",
    plans: PlanChoice = DEFAULT_PLANS,
    banks: Sequence[LabelBank] = (),
    torch_checkpoint: Path | None = None,
    overlapping: int = 0,
    root: Path | None = None,
    report: Report = unreported,
) -> Built:
    """Build, judge and time engines; make the fastest proven one the default of this device.

    ``plans`` says how TensorRT's plans are built. ``torch_checkpoint`` names a checkpoint whose transformers + torch
    fp32 tower is timed too. The old default serves until the end, and after an interruption; what was built by then is
    not built again. Raises MissingError for a target that is not here, EngineError when another build runs.
    """
    candidates, absent = find_candidates(bundle, target, plans)
    store = Store(bundle, root)
    with store.lock():
        bench = _Bench(bundle, store, held, _reference(bundle, held, report), banks)
        entries: list[StoredEngine] = []
        for index, candidate in enumerate(candidates):
            share = index / len(candidates)
            report("engines", share)
            entries.append(_prove(bench, candidate, report))
        report("engines", 1.0)
        proven = [entry for entry in entries if refusal(entry.record) is None]
        timed = time_engines(bundle, proven, held.frames, torch_checkpoint, report)
        timings = timed.by_entry
        entries = [_timed(store, entry, timings) for entry in entries]
        survivors = sorted(
            (entry for entry in entries if entry.path in timings), key=lambda entry: timings[entry.path].p50_ns
        )
        if survivors:
            store.set_default(survivors[0])
        default = store.default()
    rows = [
        CandidateResult(
            entry.record.title, "default" if default and entry.path == default.path else "proven", "", entry.record
        )
        for entry in survivors
    ]
    if timed.torch is not None:
        rows.append(CandidateResult("transformers + torch fp32", "torch", "", None, timed.torch))
    rows += [
        CandidateResult(
            entry.record.title, "failed", timed.lost.get(entry.path) or refusal(entry.record) or "", entry.record
        )
        for entry in entries
        if entry.path not in timings
    ]
    rows += [CandidateResult(one.title, "absent", one.reason) for one in absent]
    device = device_name("onnxruntime-cpu" if target == "auto" else target)
    return Built(bundle.sha256, bundle.manifest.name, device, held.name, len(held.frames), overlapping, tuple(rows))


def _reference(bundle: Bundle, held: HeldOut, report: Report) -> NDArray[np.float32]:
    engine = open_reference(bundle)
    try:
        return _answers(engine, held.frames, "reference answers", report)
    finally:
        engine.close()


def _answers(engine: Engine, frames: NDArray[np.uint8], stage: str, report: Report) -> NDArray[np.float32]:
    parts = []
    for start, part in embed_parts(engine, frames):
        parts.append(part)
        report(stage, (start + len(part)) / len(frames))
    return np.concatenate(parts)


def _prove(bench: _Bench, candidate: Candidate, report: Report) -> StoredEngine:
    """Build one candidate unless it is in the store, and judge it on these frames."""
    record = _describe(bench.bundle, candidate)
    entry = bench.store.find(record)
    if entry is not None and (entry.record.file != candidate.file or not _whole(entry, bench.bundle)):
        entry = None
    if entry is None:
        try:
            entry = _make(bench.store, bench.bundle, candidate, record, report)
        except OverflightError as error:
            with bench.store.staging() as staged:
                refused = msgspec.structs.replace(record, verdict=failed(str(error), candidate.precision))
                return bench.store.put(staged, refused)
    verdict = _judge(bench, entry, report)
    return bench.store.update(entry, msgspec.structs.replace(entry.record, verdict=verdict, timing=None))


def _describe(bundle: Bundle, candidate: Candidate) -> EngineRecord:
    graph_sha256 = bundle.manifest.files[candidate.graph]
    return EngineRecord(
        schema=SCHEMA,
        bundle=bundle.sha256,
        target=candidate.target,
        precision=candidate.precision,
        variant=candidate.variant,
        graph=candidate.graph,
        graph_sha256=graph_sha256,
        file=None,
        sha256=graph_sha256,
        size_bytes=(bundle.directory / candidate.graph).stat().st_size,
        versions=versions(candidate.target),
        device=device_name(candidate.target),
        max_batch=candidate.max_batch,
        level=candidate.level,
        profiles=candidate.profiles,
        built_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        build_s=0.0,
    )


def _whole(entry: StoredEngine, bundle: Bundle) -> bool:
    try:
        entry.check(bundle)
    except OverflightError:
        return False
    return True


def _make(store: Store, bundle: Bundle, candidate: Candidate, record: EngineRecord, report: Report) -> StoredEngine:
    began_ns = time.monotonic_ns()
    with store.staging() as staged:
        if candidate.file is None:
            return store.put(staged, record)
        source, file = bundle.file(candidate.graph), staged / candidate.file
        match candidate.form:
            case "compiled" | "unsigned":
                _compile(candidate, source, file)
            case "plan" | "parted plan":
                record = make_plan(store, candidate, record, file, report)
            case "static" | "dynamic" as form:
                derive(source, file, form)
        made = msgspec.structs.replace(
            record,
            build_s=(time.monotonic_ns() - began_ns) / 1e9,
            file=file.name,
            sha256=hash_file(file),
            size_bytes=file.stat().st_size,
        )
        return store.put(staged, made)


def _compile(candidate: Candidate, source: Path, file: Path) -> None:
    from overflight.runtime.engines.openvino import islands_of, write_compiled

    graph = source
    if candidate.form == "unsigned":
        graph = file.with_suffix(".onnx")
        derive(source, graph, "unsigned")
    write_compiled(graph, file, islands=islands_of(candidate.variant))
    if graph != source:
        graph.unlink()


def _judge(bench: _Bench, entry: StoredEngine, report: Report) -> FidelityVerdict:
    record = entry.record
    try:
        engine = open_entry(bench.bundle, entry)
        try:
            answers = _answers(engine, bench.held.frames, f"judging {record.title}", report)
        finally:
            engine.close()
    except OverflightError as error:
        return failed(str(error), record.precision)
    found = measure(bench.reference, answers, bench.banks, frames=bench.held.sha256, truth=bench.held.truth)
    verdict = judge(found, record.precision)
    if not verdict.passed and record.precision == "int8":
        reason = blame(bench.bundle, record.graph, bench.held.frames)
        verdict = msgspec.structs.replace(verdict, reasons=(*verdict.reasons, reason))
    return verdict


def _timed(store: Store, entry: StoredEngine, timings: dict[Path, Timing]) -> StoredEngine:
    timing = timings.get(entry.path)
    return entry if timing is None else store.update(entry, msgspec.structs.replace(entry.record, timing=timing))


def summarise(built: Built) -> str:
    """Say in one line what will fly."""
    default = next((row for row in built.rows if row.status == "default"), None)
    if default is None:
        return "no default engine was chosen; ONNX Runtime fp32 flies"
    return f"{default.title} flies from now on"


def check_any(built: Built) -> None:
    """Raise EngineError when nothing was proven."""
    if not any(row.status in ("default", "proven") for row in built.rows):
        reasons = "; ".join(f"{row.title}: {row.reason}" for row in built.rows if row.status == "failed")
        raise EngineError(f"no engine was proven ({reasons}); ONNX Runtime fp32 flies")
