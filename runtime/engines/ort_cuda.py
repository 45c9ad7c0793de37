"""The ONNX Runtime engine on an NVIDIA GPU: inputs and outputs stay bound, and each batch size is a CUDA graph."""

from __future__ import annotations

import io
import logging
import re
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.jetson.telemetry import on_device
from overflight.runtime.engines.driver import first_gpu
from overflight.runtime.engines.engine import EngineInfo
from overflight.runtime.engines.ort import load_library as load_onnxruntime
from overflight.runtime.errors import EngineError, MissingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.engines.engine import Precision

PROVIDER = "CUDAExecutionProvider"
# The first release that knows ``gpu_graph_id``. Before it one graph is replayed for every batch size, silently.
OLDEST = (1, 18)

log = logging.getLogger("overflight")


def load_library() -> Any:
    """Import ONNX Runtime with its CUDA provider, and the CUDA libraries that came as wheels with it.

    Raises MissingError when ONNX Runtime or its provider is not installed, or the release is too old.
    """
    onnxruntime = load_onnxruntime("gpu")
    if PROVIDER not in onnxruntime.get_available_providers():
        has = ", ".join(onnxruntime.get_available_providers())
        raise MissingError(f"this ONNX Runtime has no {PROVIDER} (it has {has}); {advice()}")
    version = tuple(int(part) for part in re.findall(r"\d+", onnxruntime.__version__)[:2])
    if version < OLDEST:
        raise MissingError(
            f"ONNX Runtime {onnxruntime.__version__} keeps one CUDA graph for every batch size; expected "
            f"{OLDEST[0]}.{OLDEST[1]} or later; {advice()}"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21; it prints what it does not find
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
            for folder in _cuda_folders():
                onnxruntime.preload_dlls(directory=str(folder))
    return onnxruntime


def _cuda_folders() -> list[Path]:
    """Return where CUDA's wheels lie: PyTorch's may be in another folder than ONNX Runtime, which seeks in its own."""
    found = find_spec("nvidia")
    places = found.submodule_search_locations if found is not None else None
    return [folder for place in places or () for folder in sorted(Path(place).glob("*/lib"))]


def advice(*, device: bool | None = None) -> str:
    """Return how to get a CUDA provider. A board's packages must not be replaced by those of other computers."""
    if on_device() if device is None else device:
        return (
            "use the TensorRT engine, which JetPack brings, or the ONNX Runtime wheel for this JetPack: see "
            "jetson/README.md"
        )
    return "run: pip uninstall onnxruntime && pip install 'overflight[gpu]'"


class CudaEngine:
    """An image tower on ONNX Runtime's CUDA provider, fp16 inside or whatever its graph says.

    The provider that the library really gave is checked: it falls back to the processor in silence. A batch size keeps
    its two device buffers and its graph; batches above ``max_batch`` are cut. Where a graph cannot be captured,
    ``graphs`` turns False and the session is opened again without. ``library`` is passed by tests.
    """

    def __init__(
        self,
        graph: Path,
        sha256: str,
        precision: Precision,
        *,
        max_batch: int = 8,
        library: Any = None,
        graphs: bool = True,
    ) -> None:
        self._ort: Any = library or load_library()
        self._path = graph
        self.graphs = graphs
        self.max_batch = max_batch
        self._bound: dict[int, tuple[Any, Any, Any, Any]] = {}
        self._session: Any = self._open()
        self.side = int(self._session.get_inputs()[0].shape[1])
        self.width = int(self._session.get_outputs()[0].shape[1])
        self._answers = np.empty((max_batch, self.width), np.float32)
        self.info = EngineInfo("onnxruntime-cuda", precision, PROVIDER, self._ort.__version__, sha256)

    def _open(self) -> Any:
        """Open a session on the GPU. The library refuses one with graphs where a node would run on the processor."""
        try:
            session = self._session_on_gpu()
        except Exception as error:  # the library raises its own family, outside any importable base
            if not self.graphs:
                raise EngineError(
                    f"{self._path}: ONNX Runtime cannot load it on the GPU ({_reason(error)}); use a CPU engine"
                ) from error
            self._give_up_graphs(error)
            return self._open()
        got = session.get_providers()[0]
        if got != PROVIDER:
            raise MissingError(f"requested {PROVIDER}, got {got}: {_why_not()}")
        return session

    def _session_on_gpu(self) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        settings = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        if self.graphs:
            settings["enable_cuda_graph"] = "1"
        return self._ort.InferenceSession(str(self._path), options, providers=[(PROVIDER, settings)])

    def _give_up_graphs(self, error: Exception) -> None:
        self.graphs = False
        self._bound.clear()
        log.warning("onnxruntime-cuda: CUDA graphs cannot be used (%s); calls are queued node by node", _reason(error))

    def _bind(self, count: int) -> tuple[Any, Any, Any, Any]:
        made = self._ort.OrtValue.ortvalue_from_shape_and_type
        frames = made([count, self.side, self.side, 3], np.uint8, "cuda", 0)
        answers = made([count, self.width], np.float32, "cuda", 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("frames", frames)
        binding.bind_ortvalue_output("embeddings", answers)
        options = self._ort.RunOptions()
        if self.graphs:
            options.add_run_config_entry("gpu_graph_id", str(count))
        return binding, frames, answers, options

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]`` into unit float32 ``[N, D]``."""
        if len(frames) > len(self._answers):
            self._answers = np.empty((len(frames), self.width), np.float32)
        for start in range(0, len(frames), self.max_batch):
            chunk = np.ascontiguousarray(frames[start : start + self.max_batch])
            try:
                self._answers[start : start + len(chunk)] = self._run(chunk)
            except Exception as error:
                raise EngineError(
                    f"ONNX Runtime failed on the GPU with {list(chunk.shape)}: {_reason(error)}"
                ) from error
        return self._answers[: len(frames)]

    def _run(self, chunk: NDArray[np.uint8]) -> NDArray[np.float32]:
        is_new = len(chunk) not in self._bound
        try:
            return self._replay(chunk)
        except Exception as error:
            if not (is_new and self.graphs):  # a graph is captured in the first run only
                raise
            self._give_up_graphs(error)
            self._session = self._open()
            return self._replay(chunk)

    def _replay(self, chunk: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(chunk) not in self._bound:
            self._bound[len(chunk)] = self._bind(len(chunk))
        binding, on_device_frames, answers, options = self._bound[len(chunk)]
        on_device_frames.update_inplace(chunk)
        self._session.run_with_iobinding(binding, options)
        found: NDArray[np.float32] = answers.numpy()
        return found

    def close(self) -> None:
        """Free the session and its buffers."""
        self._bound.clear()
        self._session = None


def _why_not() -> str:
    """Say why the provider fell back: without a GPU no library helps."""
    try:
        first_gpu()
    except MissingError as error:
        return str(error)
    return f"its CUDA or cuDNN libraries do not load; {advice()}"


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
