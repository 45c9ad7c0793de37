"""The steps of the picture's way: each stage of the 4K resize, and what a board's own scaler costs in fidelity."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.device.outcome import Answer
from overflight.runtime.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.bench.device.outcome import Figure


def resize_4k(work: Path) -> Answer:
    """Time each stage from a decoded 4K picture to the engine's input, on one thread."""
    from threadpoolctl import threadpool_limits

    from overflight.runtime.bundle import Resize
    from overflight.runtime.planes import Planes
    from overflight.runtime.resize import Resizer

    random = np.random.default_rng(3)
    luma = random.integers(16, 236, (2160, 3840), np.uint8)
    chroma = random.integers(16, 240, (2, 1080, 1920), np.uint8)
    planes = Planes(luma, (chroma[0], chroma[1]), "bt709")
    pixels = random.integers(0, 256, (2160, 3840, 3), np.uint8)
    side: int = np.load(work / "frames.npy", mmap_mode="r").shape[1]
    resizer, out = Resizer(Resize(side, "bicubic", "squash")), np.empty((side, side, 3), np.uint8)
    stages: dict[str, Callable[[], Any]] = {
        "resize of I420 planes ms": lambda: resizer.resize(planes, out, "rgb"),
        "resize of BGR pixels ms": lambda: resizer.resize(pixels, out, "bgr"),
        "copy of one I420 picture ms": lambda: (luma.copy(), chroma.copy()),
    }
    with threadpool_limits(1):
        return Answer(True, {name: _median_ms(stage) for name, stage in stages.items()})


def hardware_scale(work: Path, bundle: Path | None) -> Answer:
    """Measure what each filter of a board's VIC costs in fidelity, at two and three times the side."""
    from overflight.bench.frames import FILM
    from overflight.bench.hardware_scale import VIC, embed_through, has_vic
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.evaluation.fidelity import measure
    from overflight.runtime.sources import open_source

    if not has_vic():
        raise MissingError("this machine has no nvvidconv: not a Jetson, or without NVIDIA's GStreamer plugins")
    import cv2

    paths = []
    for frame in open_source(str(FILM)).frames():
        if frame.number % 60 == 0:
            paths.append(work / f"picture{frame.number}.png")
            cv2.imwrite(str(paths[-1]), frame.pixels if frame.order == "bgr" else frame.pixels[:, :, ::-1])
    figures: dict[str, Figure] = {}
    for factor in (2.0, 3.0):
        answers = embed_through(Bundle.open(bundle or default_bundle()), paths, factor, VIC)
        for name in VIC:
            one = measure(answers["exact"], answers[name])
            figures[f"{name} at {factor:g} x"] = f"{one.cosine_mean:.5f}, {one.cosine_p1:.5f}"
    return Answer(True, figures)


def _median_ms(work: Callable[[], Any]) -> float:
    work()
    taken = []
    for _ in range(9):
        began = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - began)
    return round(float(np.median(taken)) / 1e6, 2)
