"""Ours from picture to decision: resize, engine, match and decide, as the stream does for every frame."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.bank import random_bank
from overflight.bench.peers.ours import open_variant
from overflight.bench.peers.serve import LoadedPeer
from overflight.runtime.bundle import Bundle
from overflight.runtime.frame import Frame
from overflight.runtime.observe import Observer


def load(job: dict[str, Any]) -> LoadedPeer:
    """Open the bundle's engine with a bank of as many labels as the naive loop embeds."""
    bundle = Bundle.open(job["bundle"])
    engine, _, note = open_variant(bundle, job["variant"], job["threads"])
    observer = Observer(engine, random_bank(bundle.manifest, len(job["labels"])), bundle.manifest.resize)

    def classify(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        frame = Frame(pictures[0], 0, time.monotonic_ns(), order="bgr")
        return observer.observe(observer.prepare(frame), {}).embedding[None]

    return LoadedPeer(classify, {engine.info.target: engine.info.version}, whole=True, note=note)
