"""From a frame to an observation: resize, engine, match, decide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from overflight.runtime.decisions.decide import Decider, Decision
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import EngineError
from overflight.runtime.records import Costs, Observation, Score
from overflight.runtime.resize import Resizer
from overflight.runtime.tiles import TileGrid, Tiling, cut, window_gsd_m

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Resize
    from overflight.runtime.engines import Engine
    from overflight.runtime.frame import Frame

TOP = 5  # labels kept per observation; with the embedding in the journal all others can be had again


class FrameResult(NamedTuple):
    """A frame, what it was judged to show, and the unit embedding ``[D]`` behind that."""

    frame: Frame
    observation: Observation
    embedding: NDArray[np.float32]
    verdict: Decision


class Observer:
    """One engine and one label bank, looking at one frame at a time through buffers made once."""

    def __init__(self, engine: Engine, bank: LabelBank, contract: Resize, margin: float = 0.0) -> None:
        self.tiling: Tiling | None = None  # set to see frames piece by piece too
        self.gsd_m: Callable[[Frame], float | None] = window_gsd_m  # what tells metres per pixel of a frame
        self._engine = engine
        self._margin = margin
        self._resizer, self._tile_resizer = Resizer(contract), Resizer(contract)
        self._input: NDArray[np.uint8] = np.zeros((1, contract.side, contract.side, 3), np.uint8)
        self._resize_ns = 0
        # The products here are small; a BLAS pool that spins for them takes the cores the engine and the camera need.
        self._blas = ThreadpoolController()
        self.use(bank)

    def use(self, bank: LabelBank) -> None:
        """Match against another bank from the next frame on; one assignment, so no frame sees half of each."""
        self._matching = (bank, Matcher(bank), Decider(bank, self._margin))

    def prepare(self, frame: Frame) -> NDArray[np.uint8]:
        """Resize a frame into the engine's input ``[S, S, 3]`` and return that buffer."""
        began = time.perf_counter_ns()
        with self._blas.limit(limits=1):
            self._resizer.resize(frame.pixels, self._input[0], frame.order)
        self._resize_ns = time.perf_counter_ns() - began
        prepared: NDArray[np.uint8] = self._input[0]
        return prepared

    def _prepare_tiles(self, frame: Frame) -> tuple[int, int]:
        """Resize the frame's tiles behind the whole in the engine's input; return their rows and columns."""
        if self.tiling is None:
            return 0, 0
        began = time.perf_counter_ns()
        height, width = frame.pixels.shape[:2]
        rows, columns = self.tiling.grid(height, width, self._resizer.side, self.gsd_m(frame))
        if rows * columns == 1:
            return 0, 0
        if len(self._input) < 1 + rows * columns:
            whole = self._input[0]
            self._input = np.zeros((1 + rows * columns, *whole.shape), np.uint8)
            self._input[0] = whole
        with self._blas.limit(limits=1):
            for tile, out in zip(cut(frame.pixels, rows, columns), self._input[1:], strict=False):
                self._tile_resizer.resize(tile, out, frame.order)
        self._resize_ns += time.perf_counter_ns() - began
        return rows, columns

    def observe(self, frame: Frame, dropped: Mapping[str, int]) -> FrameResult:
        """Judge the frame that was prepared last.

        ``dropped`` is what was lost since the previous observation. Raises EngineError when the engine fails or answers
        something that is not a number.
        """
        bank, matcher, decider = self._matching
        grid = self._prepare_tiles(frame)
        began = time.perf_counter_ns()
        embeddings = self._engine.embed(self._input[: 1 + grid[0] * grid[1]])
        embedded = time.perf_counter_ns()
        if not np.isfinite(embeddings).all():
            raise EngineError(
                f"{self._engine.info.target} {self._engine.info.precision}: the engine answered NaN or infinity; "
                "build it again, or fly the fp32 engine"
            )
        embedding = embeddings[0]
        with self._blas.limit(limits=1):
            match = matcher.match(embedding)
            tiles = _judge_tiles(embeddings[1:], grid, matcher, decider)
        best = np.argsort(-match.cosines)[:TOP]
        verdict = decider.decide(match)
        matched = time.perf_counter_ns()
        scores = tuple(
            Score(
                bank.header.labels[row].text,
                round(float(match.cosines[row]), 6),
                float(match.scores[row]),
                None if np.isnan(match.shares[row]) else float(match.shares[row]),
            )
            for row in best
        )
        observation = Observation(
            frame=frame.number,
            captured_ns=frame.captured_ns,
            captured_utc_ns=frame.captured_utc_ns,
            age_ns=time.monotonic_ns() - frame.captured_ns,
            label=verdict.label,
            scores=scores,
            costs=Costs(self._resize_ns, embedded - began, matched - embedded),
            bank=bank.sha256[:16],
            engine=self._engine.info.sha256[:16],
            dropped=dict(dropped),
            media_ns=frame.media_ns,
            name=frame.name,
            window=frame.window,
            tiles=tiles,
        )
        return FrameResult(frame, observation, embedding, verdict)


def _judge_tiles(
    embeddings: NDArray[np.float32], grid: tuple[int, int], matcher: Matcher, decider: Decider
) -> TileGrid | None:
    if not len(embeddings):
        return None
    matches = [matcher.match(embedding) for embedding in embeddings]
    labels = tuple(decider.decide(match).label for match in matches)
    return TileGrid(*grid, labels, tuple(round(float(match.scores[np.argmax(match.cosines)]), 4) for match in matches))
