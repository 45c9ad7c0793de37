"""Timing: engines side by side, a call each in turn, so that a busy moment hits them all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.engines.record import Timing
from overflight.runtime.errors import OverflightError, missing_extra
from overflight.runtime.evaluation.fidelity import embed_all
from overflight.runtime.store import open_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine
    from overflight.runtime.progress import Report
    from overflight.runtime.store import StoredEngine

    Call = Callable[[NDArray[np.uint8]], object]

_WARM_UPS = 3
_LEAST_ROUNDS, _MOST_ROUNDS = 15, 100
_BUDGET_S = 60.0


def time_engines(
    bundle: Bundle,
    entries: Sequence[StoredEngine],
    frames: NDArray[np.uint8],
    torch_checkpoint: Path | None,
    report: Report,
) -> tuple[dict[Path, Timing], dict[Path, str], Timing | None]:
    """Time engines on single frames uint8 ``[N, S, S, 3]``, resized: from pixels to embeddings.

    Returns the timings by entry, what could not be timed and why, and the timing of ``torch_checkpoint``.
    """
    engines: dict[Path, Engine] = {}
    lost: dict[Path, str] = {}
    for entry in entries:
        try:
            engines[entry.path] = open_entry(bundle, entry)
            embed_all(engines[entry.path], frames[:_WARM_UPS], batch=1)
        except OverflightError as error:
            lost[entry.path] = str(error)
    calls: list[Call] = [engine.embed for engine in engines.values()]
    if torch_checkpoint is not None:
        calls.append(_torch_tower(torch_checkpoint))
    try:
        samples = take_turns(calls, frames, report)
    finally:
        for engine in engines.values():
            engine.close()
    timings = [_timing(taken) for taken in samples]
    by_engine = dict(zip(engines, timings, strict=False))
    return by_engine, lost, timings[-1] if torch_checkpoint is not None else None


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


def _timing(samples: list[int]) -> Timing:
    p50, p95 = np.percentile(samples, [50, 95])
    return Timing(batch=1, threads=0, p50_ns=int(p50), p95_ns=int(p95), samples_ns=tuple(samples))


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
