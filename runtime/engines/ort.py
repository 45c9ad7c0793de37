"""The ONNX Runtime engine: the reference on every CPU, ready without being built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.engine import EngineInfo, Precision
from overflight.runtime.engines.heap import returning_large_blocks
from overflight.runtime.errors import EngineError, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


# Without VNNI, AVX2 and AVX-512 add pairs of u8·s8 products in 16 bits, which saturates; u8·u8 is exact, and slower.
EXACT_PRODUCTS = ("session.x64quantprecision", "1")


def load_library(extra: str = "cpu") -> Any:
    """Import ONNX Runtime, with its telemetry switched off. Raises MissingError, naming the extra that brings it.

    From 1.31 on its Linux wheels keep a device id and a database of events, and a thread that sends them. What was
    imported before, or by somebody who set the variable, is left as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("ONNX Runtime for GPUs" if extra == "gpu" else "ONNX Runtime", extra) from error
    return onnxruntime


class OnnxRuntimeEngine:
    """An image tower on ONNX Runtime's CPU provider.

    ``sha256`` is the graph's, as the bundle's manifest gives it. ``threads`` 0 lets the library take every core.
    """

    def __init__(self, graph: Path, sha256: str, precision: Precision = "fp32", threads: int = 0) -> None:
        onnxruntime = load_library()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the camera needs the cores too
        options.add_session_config_entry(*EXACT_PRODUCTS)
        try:
            with returning_large_blocks():
                session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
            self._session: Any = session
        except Exception as error:  # the library raises its own family, outside any importable base
            reason = str(error).splitlines()[0]
            raise EngineError(f"{graph}: ONNX Runtime cannot load it ({reason}); export the bundle again") from error
        providers = self._session.get_providers()
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != ["frames"] or [o.name for o in outputs] != ["embeddings"]:
            raise EngineError(f"{graph}: not an image tower (frames -> embeddings); export the bundle again")
        self.side = int(inputs[0].shape[1])
        self.width = int(outputs[0].shape[1])
        self.info = EngineInfo("onnxruntime-cpu", precision, providers[0], onnxruntime.__version__, sha256)

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]`` into unit float32 ``[N, D]``."""
        try:
            (embeddings,) = self._session.run(["embeddings"], {"frames": frames})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on {list(frames.shape)}: {str(error).splitlines()[0]}") from error
        return np.asarray(embeddings, np.float32)

    def close(self) -> None:
        """Free the session."""
        self._session = None
