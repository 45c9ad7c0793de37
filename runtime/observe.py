"""Evaluate one frame: resize, embed, match, decide."""

from __future__ import annotations

import time
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from overflight.runtime.decisions.decide import Decider, Decision
from overflight.runtime.decisions.match import Match, Matcher
from overflight.runtime.errors import EngineError
from overflight.runtime.paths import printable
from overflight.runtime.pose.geotag import Location
from overflight.runtime.records import Costs, Observation, Score
from overflight.runtime.resize import Resizer
from overflight.runtime.tiles import TileGrid, Tiling, cut, window_gsd_m

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Resize
    from overflight.runtime.engines import Engine
    from overflight.runtime.frame import Frame, Picture
    from overflight.runtime.pose.footprint import Place

TOP = 5  # labels kept per observation; with the embedding in the journal all others can be had again


class PreparedFrame(NamedTuple):
    """A frame and its resized pixels uint8 ``[S, S, 3]`` RGB: the engine's own input, valid until the next frame."""

    frame: Frame
    pixels: NDArray[np.uint8]
    resize_ns: int


class FrameResult(NamedTuple):
    """A frame, its observation, and what is behind it: unit embedding ``[D]``, decision, tile embeddings ``[T, D]``."""

    frame: Frame
    observation: Observation
    embedding: NDArray[np.float32]
    decision: Decision
    tile_embeddings: NDArray[np.float32]


def nowhere(frame: Frame) -> Location:
    """Locate a frame of a source without telemetry: nothing is known."""
    return Location(None, None)


class Observer:
    """Evaluates frames with one engine and one label bank, one at a time, in buffers made once.

    With ``tiling`` each frame is also evaluated tile by tile, in the same engine call.
    """

    def __init__(
        self, engine: Engine, bank: LabelBank, contract: Resize, margin: float = 0.0, tiling: Tiling | None = None
    ) -> None:
        self._tiling = tiling
        self._tile_divisor = 1
        self.engine = engine
        self._margin = margin
        self._resizer, self._tile_resizer = Resizer(contract), Resizer(contract)
        self._input: NDArray[np.uint8] = np.zeros((1, contract.side, contract.side, 3), np.uint8)
        # The products here are small; a BLAS pool that spins for them takes the cores the engine and the camera need.
        self._blas = ThreadpoolController()
        self.use(bank)

    @property
    def is_tiled(self) -> bool:
        """Whether frames are also evaluated tile by tile."""
        return self._tiling is not None

    def reduce_tiles(self, divisor: int) -> None:
        """Divide the rows and columns of tiles from the next frame on; 0 leaves no tiles, 1 all of them."""
        self._tile_divisor = divisor

    def use(self, bank: LabelBank) -> None:
        """Match against another bank from the next frame on; one assignment, so no frame sees half of each."""
        self._matching = (bank, Matcher(bank), Decider(bank, self._margin))

    def prepare(self, frame: Frame) -> PreparedFrame:
        """Resize a frame into the engine's input."""
        began = time.perf_counter_ns()
        with self._blas.limit(limits=1):
            self._resizer.resize(frame.picture, self._input[0], frame.order)
        return PreparedFrame(frame, self._input[0], time.perf_counter_ns() - began)

    def _prepare_tiles(self, frame: Frame, tiling: Tiling, place: Place | None) -> tuple[int, int]:
        """Resize the frame's tiles into the engine's input, after the whole frame; return their rows and columns."""
        width, height = frame.size
        gsd_m = window_gsd_m(frame) if place is None or frame.window is not None else place.gsd_m
        rows, columns = tiling.grid(height, width, self._resizer.side, gsd_m)
        divisor = self._tile_divisor
        if divisor:
            rows, columns = ceil(rows / divisor), ceil(columns / divisor)
        if rows * columns == 1 or not divisor:
            return 0, 0
        if len(self._input) < 1 + rows * columns:
            whole = self._input[0]
            self._input = np.zeros((1 + rows * columns, *whole.shape), np.uint8)
            self._input[0] = whole
        with self._blas.limit(limits=1):
            tiles: Sequence[Picture] = cut(frame.picture, rows, columns)
            for tile, out in zip(tiles, self._input[1:], strict=False):
                self._tile_resizer.resize(tile, out, frame.order)
        return rows, columns

    def observe(
        self,
        prepared: PreparedFrame,
        dropped: Mapping[str, int],
        locate: Callable[[Frame], Location] = nowhere,
        *,
        skipped: Mapping[str, int] = MappingProxyType({}),
    ) -> FrameResult:
        """Evaluate a prepared frame.

        ``dropped`` counts the frames lost since the previous observation, by reason, and ``skipped`` those that the
        user asked to skip. ``locate`` is called once: before
        the engine where tiles need the ground sample distance, after it otherwise, when newer telemetry has arrived.
        Raises EngineError when the engine fails or returns values that are not finite.
        """
        bank, matcher, decider = self._matching
        frame, _, resize_ns = prepared
        location, grid = None, (0, 0)
        if self._tiling is not None:
            started = time.perf_counter_ns()
            location = locate(frame)
            grid = self._prepare_tiles(frame, self._tiling, location.place)
            resize_ns += time.perf_counter_ns() - started
        began = time.perf_counter_ns()
        embeddings = self.engine.embed(self._input[: 1 + grid[0] * grid[1]])
        embedded = time.perf_counter_ns()
        if not np.isfinite(embeddings).all():
            raise EngineError(
                f"{self.engine.info.target} {self.engine.info.precision}: the engine returned NaN or infinity; "
                "build it again, or use the fp32 engine"
            )
        embedding = embeddings[0]
        with self._blas.limit(limits=1):
            match = matcher.match(embedding)
            tiles = _decide_tiles(embeddings[1:], grid, matcher, decider)
        decision = decider.decide(match)
        matched = time.perf_counter_ns()
        age_ns = time.monotonic_ns() - frame.captured_ns
        location = location or locate(frame)
        observation = Observation(
            frame=frame.number,
            captured_ns=frame.captured_ns,
            captured_utc_ns=frame.captured_utc_ns,
            age_ns=age_ns,
            label=decision.label,
            scores=_best_scores(bank, match),
            costs=Costs(resize_ns, embedded - began, matched - embedded),
            bank=bank.sha256[:16],
            engine=self.engine.info.sha256[:16],
            dropped=dict(dropped),
            skipped=dict(skipped),
            media_ns=frame.media_ns,
            name=None if frame.name is None else printable(frame.name),
            pose=location.pose,
            place=location.place,
            window=frame.window,
            tiles=tiles,
        )
        return FrameResult(frame, observation, embedding, decision, embeddings[1:])


def _best_scores(bank: LabelBank, match: Match) -> tuple[Score, ...]:
    return tuple(
        Score(
            bank.header.labels[row].text,
            round(float(match.cosines[row]), 6),
            float(match.scores[row]),
            None if np.isnan(match.shares[row]) else float(match.shares[row]),
        )
        for row in np.argsort(-match.logits)[:TOP]
    )


def _decide_tiles(
    embeddings: NDArray[np.float32], grid: tuple[int, int], matcher: Matcher, decider: Decider
) -> TileGrid | None:
    if not len(embeddings):
        return None
    matches = [matcher.match(embedding) for embedding in embeddings]
    labels = tuple(decider.decide(match).label for match in matches)
    return TileGrid(*grid, labels, tuple(round(float(match.scores[np.argmax(match.logits)]), 4) for match in matches))
