"""PyTorch next to ONNX Runtime on the GPU: eager and compiled, in one interleaved run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from overflight.bench.device.graphs import random_tower
from overflight.bench.device.outcome import Answer
from overflight.bench.device.torch_tower import TorchTower
from overflight.runtime.errors import MissingError, OverflightError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.bench.device.outcome import Figure
    from overflight.export.tower import ImageTower

    Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Side, patch, width, heads, blocks, and the seconds after which no further batch size is begun.
TOWERS = {"B/16-256": ((256, 16, 768, 12, 12), 80.0), "L/16-256": ((256, 16, 1024, 16, 24), 110.0)}
BATCHES = (1, 8, 32)
_TURNS = 30
_TURNS_S = 5.0  # of one batch size, all engines together: a small GPU takes longer for a turn
_WARM = 3
_LEAST_COSINE = 0.998  # between two half-precision towers with the same weights


def next_to_torch(work: Path, name: str) -> Answer:
    """Time PyTorch in fp16, eager and compiled, and ONNX Runtime CUDA with the same weights.

    Each call includes the copy to the GPU and back. Raises MissingError where PyTorch sees no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise MissingError(f"PyTorch {torch.__version__} sees no GPU")
    began_s = time.monotonic()
    shape, seconds = TOWERS[name]
    tower = random_tower(*shape)
    figures: dict[str, Figure] = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}
    compiled = TorchTower(tower, "cuda")
    compiled.compile()
    engines: dict[str, Embed] = {"torch eager": TorchTower(tower, "cuda").embed, "torch compiled": compiled.embed}
    try:
        engines["onnxruntime-cuda"] = _ort_cuda(tower, work)
    except OverflightError as error:
        figures["onnxruntime-cuda"] = str(error)
    pictures = np.random.default_rng(5).integers(0, 256, (max(BATCHES), shape[0], shape[0], 3), np.uint8)
    found, least = compare(engines, pictures, BATCHES, began_s + seconds)
    whole = len(engines) == 3 and not any(isinstance(value, str) for value in found.values())
    return Answer(whole and least >= _LEAST_COSINE, {**figures, "least cosine": round(least, 6), **found})


def _ort_cuda(tower: ImageTower, work: Path) -> Embed:
    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.halve import halve
    from overflight.export.author import author_image
    from overflight.runtime.engines.ort_cuda import CudaEngine, load_library

    load_library()  # before a graph of a gigabyte is written for nothing
    path = work / "next-to-torch.onnx"
    author_image(tower, tower.encoder.width).save(path)
    path.write_bytes(halve(TowerGraph.open(path)).encoded())
    return CudaEngine(path, "0" * 64, "fp16", max_batch=max(BATCHES)).embed


def compare(
    engines: Mapping[str, Embed], pictures: NDArray[np.uint8], batches: Sequence[int], until_s: float
) -> tuple[dict[str, Figure], float]:
    """Time every engine at every batch in turns; return medians in ms, and the least cosine to the first engine.

    The first call of an engine at a batch size compiles, captures and warms up: its seconds are a figure of their own.
    An engine that fails and a batch size that is not begun until ``until_s`` (monotonic) are figures too.
    """
    figures: dict[str, Figure] = {}
    least, running = 1.0, dict(engines)
    for batch in batches:
        frames = pictures[np.arange(batch) % len(pictures)]
        if time.monotonic() > until_s:
            figures[f"batch {batch}"] = "not begun, the time was up"
            continue
        first: NDArray[np.float32] | None = None
        for name, embed in list(running.items()):
            began_s = time.monotonic()
            try:
                answer = np.array(embed(frames))
            except Exception as error:  # compilers fail in families of their own
                figures[name] = f"failed at batch {batch}: {(str(error).splitlines() or [type(error).__name__])[0]}"
                del running[name]
                continue
            figures[f"{name}, batch {batch}, first call s"] = round(time.monotonic() - began_s, 2)
            first = answer if first is None else first
            least = min(least, float((answer * first).sum(axis=1).min()))
        for name, taken in _in_turns(running, frames).items():
            figures[f"{name}, batch {batch}, ms"] = round(float(np.median(taken)) / 1e6, 3)
    return figures, least


def _in_turns(engines: dict[str, Embed], frames: NDArray[np.uint8]) -> dict[str, list[int]]:
    taken: dict[str, list[int]] = {name: [] for name in engines}
    until_s = time.monotonic() + _TURNS_S
    for turn in range(-_WARM, _TURNS):
        if turn > 0 and time.monotonic() > until_s:
            break
        for name, embed in engines.items():
            began = time.perf_counter_ns()
            embed(frames)
            if turn >= 0:
                taken[name].append(time.perf_counter_ns() - began)
    return taken
