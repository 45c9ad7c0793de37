"""The stream: from capture to decision, stage by stage, in a real recorded flight; short, or for hours."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.bench.bank import random_bank
from overflight.bench.energy import Meter
from overflight.bench.host import make_row, new_run
from overflight.bench.processor_time import ProcessorTime
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight.run import fly
from overflight.runtime.overflight import Overflight

if TYPE_CHECKING:
    from overflight.bench.energy import Drawn
    from overflight.bench.row import Row, Setting
    from overflight.bench.sample import Report
    from overflight.runtime.records import FlightRecord, Observation
    from overflight.runtime.stream import Stream

INCLUDED = {
    "resize": "whole picture to the engine's input",
    "engine": "the engine's input to the embedding",
    "match": "the embedding to the decision",
    "overhead": "all that one frame cost but the engine: source, resize, quality, match, decide, events, journal",
    "age": "capture of the frame to the decision about it",
}


@dataclass
class _Watch:
    """Collects the cost of each observation; ``ends_ns`` is when each was finished."""

    frames: int
    report: Report
    seconds: float | None = None
    seen: list[Observation] = field(default_factory=list)
    ends_ns: list[int] = field(default_factory=list)

    def __call__(self, stream: Stream, observation: Observation) -> None:
        self.seen.append(observation)
        self.ends_ns.append(time.perf_counter_ns())
        if self.seconds is None:
            self.report("flying", len(self.seen) / self.frames)
        else:
            passed = (self.ends_ns[-1] - self.ends_ns[0]) / 1e9
            self.report("flying", passed / self.seconds)
            if passed >= self.seconds:
                stream.stop()


def measure(
    directory: Path,
    *,
    fps: float = 0,
    size: str = "1280x720",
    frames: int = 300,
    labels: int = 45,
    threads: int = 0,
    seconds: float | None = None,
    report: Report = lambda stage, share: None,
) -> list[Row]:
    """Fly over the test card; ``fps`` 0 gives every frame as fast as it is taken, more is a camera at that rate.

    With ``seconds`` the flight lasts so long instead of ``frames``, and energy and throttling are watched. Returns a
    row per stage, index-aligned: sample i of each is frame i.
    """
    bundle = Bundle.open(directory)
    where = f"test://?fps={fps:g}&size={size}" + ("" if seconds else f"&frames={frames}")
    watch = _Watch(frames, report, seconds)
    meter, used = Meter(), ProcessorTime()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Overflight.load(bundle, random_bank(bundle.manifest, labels), threads=threads) as overflight,
    ):
        meter.start()
        began_ns = time.perf_counter_ns()
        try:
            with used.measuring():
                record = fly(overflight, where, Path(scratch) / "flight", on_observation=watch)
        finally:
            drawn = meter.stop()
        engine = overflight.engine.info
    stages = _stages(watch, began_ns)
    settings: dict[str, Setting] = {
        "fps": fps,
        "size": size,
        "labels": labels,
        "threads": threads,
        "engine": f"{engine.target} {engine.precision}",
    }
    run, name = new_run(), "stream" if seconds is None else "sustained"
    figures = _figures(watch, record, drawn) | used.figures(threads)
    settings |= {} if seconds is None else {"meter": drawn.meter, "throttled": drawn.throttled}
    return [
        make_row(
            name,
            stage,
            taken,
            run=run,
            included=INCLUDED[stage],
            model=bundle.manifest.name,
            settings=settings,
            versions={engine.target: engine.version},
            hashes={"bundle": bundle.sha256, "engine": engine.sha256},
            figures=figures,
        )
        for stage, taken in stages.items()
        if stage != "overhead" or not fps  # a camera's frame is waited for, which is no cost
    ]


def _stages(watch: _Watch, began_ns: int) -> dict[str, list[int]]:
    """The first two frames warm the engine and plan the resize, and are left out."""
    spans = np.diff([began_ns, *watch.ends_ns]).astype(int)
    kept = list(zip(watch.seen, spans, strict=True))[2:] or list(zip(watch.seen, spans, strict=True))
    return {
        "resize": [seen.costs.resize_ns for seen, _ in kept],
        "engine": [seen.costs.engine_ns for seen, _ in kept],
        "match": [seen.costs.match_ns for seen, _ in kept],
        "overhead": [int(span) - seen.costs.engine_ns for seen, span in kept],
        "age": [seen.age_ns for seen, _ in kept],
    }


def _figures(watch: _Watch, record: FlightRecord, drawn: Drawn) -> dict[str, float]:
    figures = {"observed": float(record.observed), "first_age_ns": float(watch.seen[0].age_ns)}
    figures |= {f"dropped {reason}": float(count) for reason, count in record.dropped.items()}
    if drawn.joules is not None:
        figures |= {"joules": drawn.joules, "joules_per_frame": drawn.joules / max(1, record.observed)}
    engine = np.asarray([seen.costs.engine_ns for seen in watch.seen[2:]] or [0], np.float64)
    tenth = max(1, len(engine) // 10)
    figures["last_tenth_over_first"] = float(np.median(engine[-tenth:]) / max(1.0, float(np.median(engine[:tenth]))))
    return figures
