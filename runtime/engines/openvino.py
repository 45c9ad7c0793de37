"""The OpenVINO engine: the fastest on x86 processors; it runs the symmetric int8 graph as it is."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.engine import EngineInfo
from overflight.runtime.errors import EngineError, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engines.engine import Precision


COMPILED = ".blob"


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


def islands_of(variant: str) -> str:
    """Return the float type of an engine's variant: bf16 where it is called so, f32 for all others."""
    return "bf16" if variant == "bf16" else "f32"


def write_compiled(graph: Path, file: Path, *, islands: str = "f32") -> None:
    """Compile a graph for this processor and write what ``OpenVinoEngine`` opens in half the time.

    Only the very version of OpenVINO that wrote it reads it. Raises EngineError.
    """
    file.write_bytes(_compile(graph, _settings(islands, 0)).export_model().getvalue())


class OpenVinoEngine:
    """An image tower on OpenVINO's CPU plugin, compiled for one frame at a time.

    A fixed batch lets the library plan its memory once; on a processor a larger one gains nothing, so batches are run
    frame by frame. ``islands`` is the type of everything that is not int8: left to itself the library would silently
    take bf16 where the processor has it.
    """

    def __init__(
        self, graph: Path, sha256: str, precision: Precision, *, islands: str = "f32", threads: int = 0
    ) -> None:
        settings = _settings(islands, threads)
        self._mapped: mmap.mmap | None = None
        if graph.suffix == COMPILED:
            self._compiled, self._mapped = _open_compiled(graph, settings)
        else:
            self._compiled = _compile(graph, settings)
        got = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if got != islands:
            raise EngineError(
                f"{graph}: OpenVINO took {got} for the float parts, asked was {islands}; use another engine"
            )
        self._request: Any = self._compiled.create_infer_request()
        self.side = int(self._compiled.input("frames").shape[1])
        self.width = int(self._compiled.output("embeddings").shape[1])
        self._answers = np.empty((1, self.width), np.float32)
        provider = f"{','.join(self._compiled.get_property('EXECUTION_DEVICES'))} {got}"
        self.info = EngineInfo("openvino-cpu", precision, provider, load_library().__version__, sha256)
        self._let_go()

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
        self._request = self._compiled = self._mapped = None

    def _let_go(self) -> None:
        """Give the file's pages back: the library has repacked the weights and reads them from the file no more.

        A page that is wanted after all comes back from the file, which the mapping keeps even where it is replaced.
        """
        if self._mapped is not None:
            self._request.infer({0: np.zeros((1, self.side, self.side, 3), np.uint8)})
            self._mapped.madvise(mmap.MADV_DONTNEED)


def _settings(islands: str, threads: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": islands, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    return {**settings, "INFERENCE_NUM_THREADS": threads} if threads else settings


def _compile(graph: Path, settings: dict[str, Any]) -> Any:
    try:
        core = load_library().Core()
        model = core.read_model(str(graph))
        side = model.input("frames").partial_shape[1].get_length()
        model.reshape({"frames": [1, side, side, 3]})
        return core.compile_model(model, "CPU", settings)
    except Exception as error:  # the library raises RuntimeError and its own kinds alike
        raise EngineError(
            f"{graph}: OpenVINO cannot load it ({str(error).strip().splitlines()[-1]}); export the bundle again"
        ) from error


def _open_compiled(path: Path, settings: dict[str, Any]) -> tuple[Any, mmap.mmap]:
    openvino = load_library()
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # the library wants it to be writable
        tensor = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
        return openvino.Core().import_model(tensor, "CPU", settings), mapped
    except Exception as error:
        raise EngineError(
            f"{path}: OpenVINO cannot load it ({str(error).strip().splitlines()[-1]}); run: overflight build"
        ) from error
