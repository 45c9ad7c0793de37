"""The target of an engine: which class opens it here, and what of this machine it is bound to."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from overflight.runtime.engines.engine import Precision, Target
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines.engine import Engine
    from overflight.runtime.engines.record import EngineRecord

REFERENCE = "image.onnx"
TARGETS: tuple[Target, ...] = get_args(Target)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def open_reference(bundle: Bundle, *, threads: int = 0) -> Engine:
    """Open the fp32 reference: ONNX Runtime on the processor. It needs no proof; every other engine is held to it."""
    from overflight.runtime.engines.ort import OnnxRuntimeEngine

    return OnnxRuntimeEngine(bundle.file(REFERENCE), bundle.manifest.files[REFERENCE], threads=threads)


def open_engine(bundle: Bundle, record: EngineRecord, path: Path, *, threads: int = 0) -> Engine:
    """Open the engine in ``path`` that ``record`` describes.

    Raises EngineError when library or device are not the ones it was built for, MissingError when they are not there.
    """
    here = versions(record.target)
    if here != record.versions:
        raise EngineError(
            f"built with {_list(record.versions)}, here is {_list(here)}; run: overflight build {bundle.directory}"
        )
    device = device_name(record.target)
    if device != record.device:
        raise EngineError(f"built for {record.device}, this is {device}; run: overflight build {bundle.directory}")
    match record.target:
        case "onnxruntime-cpu":
            from overflight.runtime.engines.ort import OnnxRuntimeEngine

            return OnnxRuntimeEngine(path, record.sha256, record.precision, threads=threads)
        case "onnxruntime-cuda":
            from overflight.runtime.engines.ort_cuda import CudaEngine

            return CudaEngine(path, record.sha256, record.precision)
        case "openvino-cpu":
            from overflight.runtime.engines.openvino import OpenVinoEngine, islands_of

            islands = islands_of(record.variant)
            return OpenVinoEngine(path, record.sha256, record.precision, islands=islands, threads=threads)
        case "tensorrt":
            from overflight.runtime.engines.tensorrt import TensorRtEngine

            return TensorRtEngine(path, record.sha256, record.precision)


def versions(target: Target) -> dict[str, str]:
    """Return the versions that an engine of this target is bound to. Raises MissingError with what to install."""
    match target:
        case "onnxruntime-cpu":
            from overflight.runtime.engines.ort import load_library as load_onnxruntime

            return {"onnxruntime": load_onnxruntime().__version__}
        case "onnxruntime-cuda":
            from overflight.runtime.engines.ort_cuda import load_library as load_cuda

            return {"onnxruntime": load_cuda().__version__}
        case "openvino-cpu":
            from overflight.runtime.engines.openvino import load_library as load_openvino

            return {"openvino": load_openvino().__version__}
        case "tensorrt":
            from overflight.runtime.engines.tensorrt import load_library as load_tensorrt

            return {"tensorrt": load_tensorrt().__version__}


def device_name(target: Target) -> str:
    """Return what runs an engine of this target: the processor's model name, or the GPU with its compute capability."""
    match target:
        case "onnxruntime-cpu" | "openvino-cpu":
            return processor_name()
        case "onnxruntime-cuda" | "tensorrt":
            from overflight.runtime.engines.gpu import gpu_name

            return gpu_name()


def processor_name() -> str:
    """Return the processor's model name with the instruction sets that decide how int8 runs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or facts.get("Hardware") or platform.processor() or platform.machine()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    kept = [
        flag
        for flag in ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
        if flag in flags
    ]
    return f"{name} ({', '.join(kept)})" if kept else name


def _list(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())
