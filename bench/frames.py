"""Frames for measurements: real ones, whole and resized, the same for every subject of a run."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.resize import Resizer
from overflight.runtime.sources import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

FILM = Path(__file__).resolve().parent.parent / "station" / "demo" / "flight.mp4"


@dataclass(frozen=True)
class Frames:
    """``resized`` uint8 ``[N, S, S, 3]`` RGB, ``pictures`` ``[N, H, W, 3]`` in BGR, and the SHA-256 of the former."""

    name: str
    resized: NDArray[np.uint8]
    pictures: NDArray[np.uint8]
    sha256: str


def take_frames(where: str, bundle: Bundle, count: int, every: int = 10) -> Frames:
    """Take ``count`` frames of a source, ``every`` so many, of the size of the first; fewer where it ends earlier."""
    source = open_source(where)
    resizer = Resizer(bundle.manifest.resize)
    pictures: list[NDArray[np.uint8]] = []
    resized: list[NDArray[np.uint8]] = []
    try:
        for frame in islice(source.frames(), 0, None, every):
            pixels = np.ascontiguousarray(frame.pixels if frame.order == "bgr" else frame.pixels[:, :, ::-1])
            if pictures and pixels.shape != pictures[0].shape:
                continue
            out = np.empty((resizer.side, resizer.side, 3), np.uint8)
            resizer.resize(pixels, out, "bgr")
            pictures.append(pixels.copy())
            resized.append(out)
            if len(pictures) == count:
                break
    finally:
        source.close()
    stack = np.stack(resized)
    return Frames(Path(where).name, stack, np.stack(pictures), hashlib.sha256(stack.tobytes()).hexdigest())


def wait_for_quiet(seconds: float, load: float) -> float:
    """Wait, at most so long, until the one-minute load is at most ``load``; returns the load then."""
    import os

    until = time.monotonic() + seconds
    while os.getloadavg()[0] > load and time.monotonic() < until:
        time.sleep(1.0)
    return os.getloadavg()[0]
