"""The engine protocol: what every image tower answers, whichever library runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Target = Literal["onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]


class EngineInfo(msgspec.Struct, frozen=True):
    """Which engine answers: what it was built from, what really runs it.

    ``provider`` is what the library reported after loading, never what was asked for. ``sha256`` names the graph or
    plan that runs (64 hex digits).
    """

    target: Target
    precision: Precision
    provider: str
    version: str
    sha256: str


class Engine(Protocol):
    """The image tower: uint8 RGB frames ``[N, S, S, 3]`` in, unit embeddings float32 ``[N, D]`` out."""

    @property
    def info(self) -> EngineInfo:
        """Which engine this is."""

    @property
    def side(self) -> int:
        """The side S of the square input, in pixels."""

    @property
    def width(self) -> int:
        """The length D of an embedding."""

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch; the answer may be overwritten by the next call."""

    def close(self) -> None:
        """Free what the engine holds; safe to call twice."""
