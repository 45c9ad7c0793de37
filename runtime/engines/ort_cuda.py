"""The ONNX Runtime engine on an NVIDIA GPU: inputs and outputs stay bound, and each batch size is a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.engine import EngineInfo
from overflight.runtime.engines.ort import load_library as load_onnxruntime
from overflight.runtime.errors import EngineError, MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engines.engine import Precision

PROVIDER = "CUDAExecutionProvider"


def load_library() -> Any:
    """Import ONNX Runtime with its CUDA provider. Raises MissingError when either is not there."""
    onnxruntime = load_onnxruntime("gpu")
    if PROVIDER not in onnxruntime.get_available_providers():
        raise MissingError(
            f"this ONNX Runtime has no {PROVIDER} (it has {', '.join(onnxruntime.get_available_providers())}); "
            "run: pip uninstall onnxruntime && pip install 'overflight[gpu]'"
        )
    return onnxruntime


class CudaEngine:
    """An image tower on ONNX Runtime's CUDA provider, fp16 inside or whatever its graph says.

    The provider that the library really gave is checked: it falls back to the processor in silence. A batch size keeps
    its two device buffers and its graph; batches above ``max_batch`` are cut. ``library`` is handed in by tests.
    """

    def __init__(
        self, graph: Path, sha256: str, precision: Precision, *, max_batch: int = 8, library: Any = None
    ) -> None:
        self._ort: Any = library or load_library()
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        asked = (PROVIDER, {"enable_cuda_graph": "1", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
        try:
            self._session: Any = self._ort.InferenceSession(str(graph), options, providers=[asked])
        except Exception as error:  # the library raises its own family, outside any importable base
            reason = str(error).splitlines()[0]
            raise EngineError(
                f"{graph}: ONNX Runtime cannot load it on the GPU ({reason}); use a CPU engine"
            ) from error
        providers = self._session.get_providers()
        if providers[0] != PROVIDER:
            raise MissingError(f"asked for {PROVIDER}, got {providers[0]}: its CUDA or cuDNN libraries are not found")
        self.max_batch = max_batch
        self.side = int(self._session.get_inputs()[0].shape[1])
        self.width = int(self._session.get_outputs()[0].shape[1])
        self._bound: dict[int, tuple[Any, Any, Any, Any]] = {}
        self._answers = np.empty((max_batch, self.width), np.float32)
        self.info = EngineInfo("onnxruntime-cuda", precision, providers[0], self._ort.__version__, sha256)

    def _bind(self, count: int) -> tuple[Any, Any, Any, Any]:
        made = self._ort.OrtValue.ortvalue_from_shape_and_type
        frames = made([count, self.side, self.side, 3], np.uint8, "cuda", 0)
        answers = made([count, self.width], np.float32, "cuda", 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("frames", frames)
        binding.bind_ortvalue_output("embeddings", answers)
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(count))
        return binding, frames, answers, options

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]`` into unit float32 ``[N, D]``."""
        if len(frames) > len(self._answers):
            self._answers = np.empty((len(frames), self.width), np.float32)
        for start in range(0, len(frames), self.max_batch):
            chunk = np.ascontiguousarray(frames[start : start + self.max_batch])
            if len(chunk) not in self._bound:
                self._bound[len(chunk)] = self._bind(len(chunk))
            binding, on_device, answers, options = self._bound[len(chunk)]
            try:
                on_device.update_inplace(chunk)
                self._session.run_with_iobinding(binding, options)
                self._answers[start : start + len(chunk)] = answers.numpy()
            except Exception as error:
                reason = str(error).splitlines()[0]
                raise EngineError(f"ONNX Runtime failed on the GPU with {list(chunk.shape)}: {reason}") from error
        return self._answers[: len(frames)]

    def close(self) -> None:
        """Free the session and its buffers."""
        self._bound.clear()
        self._session = None
