"""Timing: processor engines in turns, a call each, so that a busy moment hits them all; GPU engines one by one.

On one device they would slow each other down: a GPU engine's clocks drop while a processor engine works, and on a board
both take the same memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from overflight.jetson.nvidia_smi import read_any
from overflight.jetson.telemetry import judge
from overflight.runtime.doctor.memory_plan import MARGIN, plan_flight, usable_here
from overflight.runtime.doctor.tower import read_tower
from overflight.runtime.engines import REFERENCE
from overflight.runtime.engines.record import DeviceState, Timing
from overflight.runtime.errors import BundleError, OverflightError, missing_extra
from overflight.runtime.evaluation.fidelity import embed_all
from overflight.runtime.store import open_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.jetson.telemetry import DeviceReading
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine
    from overflight.runtime.progress import Report
    from overflight.runtime.store import StoredEngine

    Call = Callable[[NDArray[np.uint8]], object]

_WARM_UPS = 3
_GPU_WARM_S = 1.0  # clocks rise with the load, within some hundred milliseconds
_LEAST_ROUNDS, _MOST_ROUNDS = 15, 100
_BUDGET_S = 60.0
_GPU_TARGETS = frozenset({"onnxruntime-cuda", "tensorrt"})


@dataclass
class EngineTimings:
    """Timings by entry, what could not be timed and why, and the timing of the torch checkpoint."""

    by_entry: dict[Path, Timing] = field(default_factory=dict)
    lost: dict[Path, str] = field(default_factory=dict)
    torch: Timing | None = None


def time_engines(
    bundle: Bundle,
    entries: Sequence[StoredEngine],
    frames: NDArray[np.uint8],
    torch_checkpoint: Path | None,
    report: Report,
) -> EngineTimings:
    """Time engines on single frames uint8 ``[N, S, S, 3]``, resized: from pixels to embeddings.

    Engines that would not fit into memory together are opened one at a time.
    """
    found = EngineTimings()
    on_processor = [entry for entry in entries if entry.record.target not in _GPU_TARGETS]
    groups = [on_processor] if _fit_together(bundle, on_processor) else [[entry] for entry in on_processor]
    for group in groups[:-1]:
        _time_group(bundle, group, frames, None, report, found)
    _time_group(bundle, groups[-1], frames, torch_checkpoint, report, found)
    for entry in entries:
        if entry.record.target in _GPU_TARGETS:
            _time_group(bundle, [entry], frames, None, report, found, warm_s=_GPU_WARM_S)
    return found


def _time_group(
    bundle: Bundle,
    entries: Sequence[StoredEngine],
    frames: NDArray[np.uint8],
    torch_checkpoint: Path | None,
    report: Report,
    found: EngineTimings,
    *,
    warm_s: float = 0.0,
) -> None:
    """Open engines together, time them in turns, and close them."""
    engines: dict[Path, Engine] = {}
    try:
        for entry in entries:
            try:
                engines[entry.path] = open_entry(bundle, entry)
                _warm_up(engines[entry.path], frames, warm_s)
            except OverflightError as error:
                found.lost[entry.path] = str(error)
                if entry.path in engines:
                    engines.pop(entry.path).close()
        calls: list[Call] = [engine.embed for engine in engines.values()]
        if torch_checkpoint is not None:
            calls.append(_torch_tower(torch_checkpoint))
        before = read_any()
        samples = take_turns(calls, frames, report)
        state = _device_state(before, read_any())
    finally:
        for engine in engines.values():
            engine.close()
    timings = [_timing(taken, state) for taken in samples]
    found.by_entry.update(zip(engines, timings, strict=False))
    if torch_checkpoint is not None:
        found.torch = timings[-1]


def _warm_up(engine: Engine, frames: NDArray[np.uint8], seconds: float) -> None:
    embed_all(engine, frames[:_WARM_UPS], batch=1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        engine.embed(frames[:1])


def _fit_together(bundle: Bundle, entries: Sequence[StoredEngine]) -> bool:
    """Whether engines of the processor can all be open at once; where memory is unknown they are opened."""
    usable, _ = usable_here()
    try:
        tower = read_tower(bundle.file(REFERENCE))
    except BundleError:
        return True
    records = [entry.record for entry in entries]
    peaks = sum(plan_flight(tower, record.target, record.precision, usable).peak for record in records)
    return not usable or peaks + MARGIN <= usable


def _device_state(before: DeviceReading | None, after: DeviceReading | None) -> DeviceState | None:
    if before is None or after is None:
        return None
    return DeviceState(
        after.power_mode,
        (before.gpu_mhz, after.gpu_mhz),
        after.gpu_limit_mhz,
        after.clocks_locked,
        after.hottest_c,
        judge([before, after]).reasons,
    )


def take_turns(calls: Sequence[Call], frames: NDArray[np.uint8], report: Report) -> list[list[int]]:
    """Call each in turn on one frame after another; returns nanoseconds per call."""
    samples: list[list[int]] = [[] for _ in calls]
    rounds = _LEAST_ROUNDS
    done = 0
    while calls and done < rounds:
        frame = frames[done % len(frames)][None]
        for call, taken in zip(calls, samples, strict=True):
            began_ns = time.perf_counter_ns()
            call(frame)
            taken.append(time.perf_counter_ns() - began_ns)
        done += 1
        if done == 3:
            one_round_s = sum(min(taken) for taken in samples) / 1e9
            rounds = int(np.clip(_BUDGET_S / one_round_s, _LEAST_ROUNDS, _MOST_ROUNDS))
        report("timing side by side", done / rounds)
    return samples


def _timing(samples: list[int], device: DeviceState | None) -> Timing:
    p50, p95 = np.percentile(samples, [50, 95])
    return Timing(batch=1, threads=0, p50_ns=int(p50), p95_ns=int(p95), samples_ns=tuple(samples), device=device)


def _torch_tower(checkpoint: Path) -> Call:
    """Return the reference implementation's image tower, fp32, from pixels to unit embeddings as users write it."""
    try:
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise missing_extra("transformers with torch", "torch") from error
    model = AutoModel.from_pretrained(checkpoint).eval()

    def embed(frames: NDArray[np.uint8]) -> object:
        with torch.inference_mode():
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
            found = model.get_image_features(pixel_values=pixels)
            found = getattr(found, "pooler_output", found)
            return torch.nn.functional.normalize(found, dim=-1).numpy()

    embed(np.zeros((1, model.config.vision_config.image_size, model.config.vision_config.image_size, 3), np.uint8))
    return embed
