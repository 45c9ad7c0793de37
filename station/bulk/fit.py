"""Fitting a run to a machine: how many workers, with how many threads, that its cores and memory allow."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from overflight.runtime.doctor.memory_plan import MARGIN, MIB, plan_flight, usable_here
from overflight.runtime.doctor.tower import read_tower
from overflight.runtime.errors import BundleError, MissingError

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Precision, Target
    from overflight.station.bulk.records import Settings

BATCH = {"onnxruntime-cpu": 8, "openvino-cpu": 8, "onnxruntime-cuda": 64, "tensorrt": 32}
# pyarrow, a piece cache of a mosaic (128 MiB at most) and a decoded picture, above what a flight takes.
_BESIDES = 190 * MIB
_UNKNOWN = 1024 * MIB  # of a graph that is not one of ours


@dataclass(frozen=True)
class Fit:
    """``workers`` processes of ``threads`` engine threads each, ``worker_bytes`` of memory at the most for each."""

    workers: int
    threads: int
    worker_bytes: int


def fit(bundle: Bundle, settings: Settings, workers: int | None = None, threads: int | None = None) -> Fit:
    """Return one worker a core if the memory holds them, else fewer with more threads. Raises MissingError for none.

    One thread a worker embeds more frames in all than one engine on every core, because other workers embed while one
    reads and resizes. A GPU is given to one worker.
    """
    need = worker_bytes(bundle, settings)
    usable, _ = usable_here()
    most = max(0, (usable - MARGIN) // need) if usable else 1 << 16  # 0: the system does not say
    if workers is not None and workers > most:
        raise MissingError(
            f"{workers} workers need {workers * need // MIB} MiB, {usable // MIB} can be used; take fewer"
        )
    if not most:
        raise MissingError(f"a worker needs {need // MIB} MiB, {usable // MIB} can be used; take a smaller tower")
    cores = cores_here()
    wanted = 1 if settings.target in {"onnxruntime-cuda", "tensorrt"} else max(1, cores // (threads or 1))
    chosen = workers or min(wanted, most)
    return Fit(chosen, threads or max(1, cores // chosen), need)


def worker_bytes(bundle: Bundle, settings: Settings) -> int:
    """Return the memory that one worker takes at its peak, by the memory plan."""
    target, precision = cast("Target", settings.target), cast("Precision", settings.precision)
    with suppress(BundleError):
        tower = read_tower(bundle.file("image.onnx"))
        return plan_flight(tower, target, precision, 0, settings.batch).peak + _BESIDES
    return _UNKNOWN


def cores_here() -> int:
    """Return how many cores this process may use; a scheduler's limit counts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
