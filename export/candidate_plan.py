"""The TensorRT plan of a candidate: its memory fitted, its int8 graph parted, built in a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.derive import derive
from overflight.export.inspection import explain
from overflight.export.plan import PlanSettings
from overflight.export.plan_process import build_in_child
from overflight.runtime.doctor.memory_plan import plan_build, require, usable_here
from overflight.runtime.doctor.tower import read_tower
from overflight.runtime.engines import REFERENCE
from overflight.runtime.engines.tensorrt import load_library

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.export.candidates import Candidate
    from overflight.runtime.engines.record import EngineRecord
    from overflight.runtime.progress import Report
    from overflight.runtime.store import Store


def make_plan(store: Store, candidate: Candidate, record: EngineRecord, file: Path, report: Report) -> EngineRecord:
    """Build a candidate's plan into ``file`` and return its record with what the builder made.

    Raises MissingError where memory is short, EngineError when the builder fails.
    """
    tower = read_tower(store.bundle.file(REFERENCE))
    fitted = require(plan_build(tower, candidate.precision, *usable_here(), batch=candidate.max_batch))
    assert candidate.level is not None
    graph = store.bundle.file(candidate.graph)
    if candidate.form == "parted plan":
        graph = file.with_suffix(".onnx")
        derive(store.bundle.file(candidate.graph), graph, "parted")
    try:
        counts = build_in_child(
            graph,
            file,
            PlanSettings(fitted.workspace or 0, candidate.profiles, candidate.level),
            cache_path=store.path.parent / f"tensorrt-{load_library().__version__}.timing",
            report=lambda share: report(f"building {candidate.title}", share),
        )
    finally:
        if candidate.form == "parted plan":
            graph.unlink(missing_ok=True)
    return msgspec.structs.replace(record, layers=counts, note=explain(counts, tower.depth))
