"""The OpenVINO engine: the fastest on x86 processors; it runs the symmetric int8 graph as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engine import EngineInfo
from overflight.runtime.errors import EngineError, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engine import Precision


def load_library() -> Any:
    """Import OpenVINO. Raises MissingError when it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("OpenVINO", "openvino") from error
    return openvino


def native_islands() -> list[str]:
    """Return the float types that this processor computes in: always f32, bf16 where it has the instructions."""
    able = load_library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", *(kind for kind in ("bf16",) if kind.upper() in able)]


class OpenVinoEngine:
    """An image tower on OpenVINO's CPU plugin, compiled for one frame at a time.

    A fixed batch lets the library plan its memory once; on a processor a larger one gains nothing, so batches are run
    frame by frame. ``islands`` is the type of everything that is not int8: left to itself the library would silently
    take bf16 where the processor has it.
    """

    def __init__(
        self, graph: Path, sha256: str, precision: Precision, *, islands: str = "f32", threads: int = 0
    ) -> None:
        openvino = load_library()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": islands,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(str(graph))
            side = model.input("frames").partial_shape[1].get_length()
            model.reshape({"frames": [1, side, side, 3]})
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        except Exception as error:  # the library raises RuntimeError and its own kinds alike
            raise EngineError(
                f"{graph}: OpenVINO cannot load it ({str(error).strip().splitlines()[-1]}); export the bundle again"
            ) from error
        got = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if got != islands:
            raise EngineError(
                f"{graph}: OpenVINO took {got} for the float parts, asked was {islands}; use another engine"
            )
        self._request: Any = self._compiled.create_infer_request()
        self.side = int(side)
        self.width = int(self._compiled.output("embeddings").shape[1])
        self._answers = np.empty((1, self.width), np.float32)
        provider = f"{','.join(self._compiled.get_property('EXECUTION_DEVICES'))} {got}"
        self.info = EngineInfo("openvino-cpu", precision, provider, openvino.__version__, sha256)

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]`` into unit float32 ``[N, D]``."""
        if len(frames) > len(self._answers):
            self._answers = np.empty((len(frames), self.width), np.float32)
        answers = self._answers[: len(frames)]
        try:
            for index, frame in enumerate(frames):
                found = self._request.infer({0: frame[None]}, share_inputs=True, share_outputs=True)
                answers[index] = found[0][0]
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {list(frames.shape)}: {str(error).splitlines()[0]}") from error
        return answers

    def close(self) -> None:
        """Free the compiled tower."""
        self._request = self._compiled = None
