"""Growth of the cost with the batch and the picture; labels and embeddings are in match.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.bench.host import make_row, new_run
from overflight.bench.processor_time import ProcessorTime
from overflight.bench.sample import SamplingPlan, take_turns, timed
from overflight.runtime.bundle import Bundle
from overflight.runtime.resize import Resizer
from overflight.runtime.store import choose

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.bench.row import Row
    from overflight.bench.sample import Report
    from overflight.runtime.engines import Engine

TILE = 1000  # pixels of the picture under one tile: a scene of a survey flight, squashed to the engine's side


def measure_batches(
    directory: Path,
    batches: Sequence[int],
    plan: SamplingPlan,
    *,
    threads: int = 0,
    report: Report = lambda stage, share: None,
) -> list[Row]:
    """Embed batches of so many frames with the bundle's engine; a sample is the whole batch."""
    bundle = Bundle.open(directory)
    engine = choose(bundle, "onnxruntime-cpu", "fp32", threads=threads).engine
    noise = np.random.default_rng(0).integers(0, 255, (max(batches), engine.side, engine.side, 3), np.uint8)
    calls = {str(size): timed(lambda size=size: engine.embed(noise[:size])) for size in batches}  # type: ignore[misc]
    used = ProcessorTime()
    with used.measuring():
        samples = take_turns(calls, plan, report)
    engine.close()
    run = new_run()
    return [
        make_row(
            "batches",
            "ours:fp32",
            samples[str(size)],
            run=run,
            included="resized uint8 frames in, unit embeddings out, for the whole batch",
            model=bundle.manifest.name,
            settings={"batch": size, "threads": threads},
            versions={engine.info.target: engine.info.version},
            hashes={"bundle": bundle.sha256, "engine": engine.info.sha256},
            figures={"per_second": size * 1e9 / float(np.median(samples[str(size)])), **used.figures(threads)},
        )
        for size in batches
    ]


def measure_tiles(
    directory: Path,
    sides: Sequence[int],
    plan: SamplingPlan,
    *,
    threads: int = 0,
    report: Report = lambda stage, share: None,
) -> list[Row]:
    """Cut square pictures into tiles of at most TILE pixels, resize and embed each; a sample is the whole picture."""
    bundle = Bundle.open(directory)
    engine = choose(bundle, "onnxruntime-cpu", "fp32", threads=threads).engine
    resizer = Resizer(bundle.manifest.resize)
    picture = np.random.default_rng(0).integers(0, 255, (max(sides), max(sides), 3), np.uint8)
    calls = {
        str(side): timed(lambda side=side: embed_tiles(engine, resizer, picture[:side, :side]))  # type: ignore[misc]
        for side in sides
    }
    used = ProcessorTime()
    with used.measuring():
        samples = take_turns(calls, plan, report)
    engine.close()
    run = new_run()
    return [
        make_row(
            "tiles",
            "ours:fp32",
            samples[str(side)],
            run=run,
            included=f"a square picture in, an embedding per tile of at most {TILE} px out: cut, resized, embedded",
            model=bundle.manifest.name,
            settings={"side": side, "tiles": (-(-side // TILE)) ** 2, "threads": threads},
            hashes={"bundle": bundle.sha256, "engine": engine.info.sha256},
            figures=used.figures(threads),
        )
        for side in sides
    ]


def embed_tiles(engine: Engine, resizer: Resizer, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed a picture ``[H, W, 3]`` tile by tile, in rows, into ``[tiles, D]``."""
    batch = np.empty((1, resizer.side, resizer.side, 3), np.uint8)
    found = []
    for top in range(0, len(picture), TILE):
        for left in range(0, picture.shape[1], TILE):
            resizer.resize(picture[top : top + TILE, left : left + TILE], batch[0])
            found.append(np.array(engine.embed(batch)[0]))
    return np.stack(found)
