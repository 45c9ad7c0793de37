"""The embedder of one worker: its engine, its resizer, and frames that wait until a batch is full."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import numpy as np

from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import EngineError, OverflightError, UsageError
from overflight.runtime.resize import Resizer
from overflight.runtime.store import choose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.engines import Engine, Precision, Target
    from overflight.runtime.frame import Frame
    from overflight.station.bulk.records import Settings


class Embedder:
    """Turns frames into rows of unit embeddings, ``settings.batch`` at a time, in the order in which they come.

    A frame that cannot be read takes its place in the batch all the same (``skip``): which frames share a call of the
    engine must not depend on luck, because some engines answer differently by some 1e-7 for another batch.
    """

    def __init__(self, settings: Settings, threads: int) -> None:
        """Open the engine that the settings name. Raises EngineError where this machine has another one."""
        self.settings = settings
        self.bundle = Bundle.open(settings.bundle)
        if self.bundle.sha256 != settings.bundle_sha256:
            raise UsageError(f"{settings.bundle}: another bundle than this store was begun with; restore it")
        self.engine = self._open(threads)
        self._resizer = Resizer(self.bundle.manifest.resize)
        side = self._resizer.side
        self._frames: NDArray[np.uint8] = np.zeros((settings.batch, side, side, 3), np.uint8)
        self._kept: list[bool] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.resize_s = self.engine_s = 0.0

    def begin(self, vectors: list[NDArray[np.float32]]) -> None:
        """Begin a shard whose embeddings go into ``vectors``."""
        self.vectors, self._kept = vectors, []
        self.resize_s = self.engine_s = 0.0

    def add(self, frame: Frame) -> None:
        """Take a frame. Raises SourceError for one that is no picture."""
        began = time.perf_counter()
        self._resizer.resize(frame.picture, self._frames[len(self._kept)], frame.order)
        self.resize_s += time.perf_counter() - began
        self._put(kept=True)

    def skip(self) -> None:
        """Leave the place of a frame that cannot be read black."""
        self._frames[len(self._kept)] = 0
        self._put(kept=False)

    def flush(self) -> None:
        """Embed what waits, so that the next frame begins a batch."""
        if not self._kept:
            return
        began = time.perf_counter()
        answers = self.engine.embed(self._frames[: len(self._kept)])
        self.engine_s += time.perf_counter() - began
        for vector, kept in zip(answers, self._kept, strict=True):
            if not kept:
                continue
            if not np.isfinite(vector).all():
                raise EngineError("the engine answered numbers that are not finite; verify it with: overflight verify")
            self.vectors.append(np.array(vector, np.float32))
        self._kept = []

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def _put(self, *, kept: bool) -> None:
        self._kept.append(kept)
        if len(self._kept) == self.settings.batch:
            self.flush()

    def _open(self, threads: int) -> Engine:
        wanted = self.settings
        target, precision = cast("Target", wanted.target), cast("Precision", wanted.precision)
        try:
            engine = choose(self.bundle, target, precision, threads=threads, forced=True).engine
        except OverflightError as error:
            raise EngineError(f"this machine cannot open the store's engine: {error}") from error
        if engine.info.sha256 != wanted.engine_sha256:
            engine.close()
            raise EngineError(
                f"{wanted.target} {wanted.precision}: this machine's engine is {engine.info.sha256[:12]}, the store's "
                f"{wanted.engine_sha256[:12]}; use --engine onnxruntime-cpu, which is the same everywhere"
            )
        return engine
