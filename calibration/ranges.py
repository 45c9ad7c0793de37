"""Ranges of the tower's tensors on real frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overflight.calibration.graph import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.calibration.graph import Product, TowerGraph

    Report = Callable[[float], None]

_ROWS = 384  # per product: more do not change which clip wins
_SAMPLE_BYTES = 700 << 20  # all rows kept of all products together


@dataclass(slots=True)
class Activity:
    """What one product reads: the largest magnitude of each input channel ``[K]``, and sampled rows ``[R, K]``."""

    peak: NDArray[np.float32]
    rows: NDArray[np.float32]


def watch(
    tower: TowerGraph,
    products: Sequence[Product],
    frames: NDArray[np.uint8],
    tuning: NDArray[np.uint8],
    report: Report = lambda share: None,
) -> dict[str, Activity]:
    """Run the fp32 tower: peaks come from ``frames``, rows to choose clips by from ``tuning`` (other frames).

    Both are uint8 ``[N, S, S, 3]``, resized as at run time. The rows of a product are spread over all tuning frames.
    """
    reads = sorted({product.reads for product in products})
    inner = {product.reads: product.inner for product in products}
    session = open_session(tower.watched(reads))
    width = sum(inner.values())
    keep = max(1, min(_ROWS, _SAMPLE_BYTES // (4 * width)) // len(tuning))
    peaks = {name: np.zeros(inner[name], np.float32) for name in reads}
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in reads}
    random = np.random.default_rng(0)
    total = len(frames) + len(tuning)
    for index in range(total):
        frame = frames[index] if index < len(frames) else tuning[index - len(frames)]
        found = session.run(reads, {"frames": frame[None]})
        for name, values in zip(reads, found, strict=True):
            flat = values.reshape(-1, inner[name])
            if index < len(frames):
                np.maximum(peaks[name], np.abs(flat).max(axis=0), out=peaks[name])
            else:
                rows[name].append(flat[random.choice(len(flat), min(keep, len(flat)), replace=False)].copy())
        report((index + 1) / total)
    return {product.name: Activity(peaks[product.reads], np.concatenate(rows[product.reads])) for product in products}


def extremes(tower: TowerGraph, frames: NDArray[np.uint8], report: Report = lambda share: None) -> dict[str, float]:
    """Return the largest magnitude of every float tensor that a node writes."""
    names = [
        name
        for node in tower.model.graph.node
        for name in node.output
        if node.op_type not in ("QuantizeLinear", "Constant")
    ]
    session = open_session(tower.watched(names))
    largest = dict.fromkeys(names, 0.0)
    for index, frame in enumerate(frames):
        for name, values in zip(names, session.run(names, {"frames": frame[None]}), strict=True):
            largest[name] = float(np.fmax(largest[name], np.nan_to_num(np.abs(values).max(), nan=np.inf)))
        report((index + 1) / len(frames))
    return largest
