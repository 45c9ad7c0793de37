"""ONNX Runtime on the graph that torch traces: fp32 as traced, and its own dynamic and static int8."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.peers.serve import LoadedPeer, PeerUnavailable
from overflight.bench.peers.transformers_torch import normalisation

_CALIBRATION_FRAMES = 32  # of the measured ones, where the bundle was not calibrated


def load(job: dict[str, Any]) -> LoadedPeer:
    """Trace, quantise where asked (both once per checkpoint and kept), and open on the CPU provider."""
    import onnxruntime

    graph = trace(job)
    if job["variant"] != "fp32":
        graph = _quantised(graph, job)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    mean, std = (np.asarray(x, np.float32) for x in normalisation(job["checkpoint"]))

    def embed(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        (vectors,) = session.run(None, {"pixels": prepare(frames, mean, std)})
        return unit(vectors)

    note = calibration_note(job) if job["variant"] == "static" else ""
    return LoadedPeer(embed, {"onnxruntime": onnxruntime.__version__}, graph=str(graph), note=note)


def prepare(frames: NDArray[np.uint8], mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise as the tutorials do in numpy: uint8 ``[N, S, S, 3]`` to float32 ``[N, 3, S, S]``."""
    pixels = (frames.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows ``[N, D]`` to unit length."""
    answer: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return answer


def trace(job: dict[str, Any]) -> Path:
    """Have torch write the tower's graph (``pixels`` -> ``vectors``), once per checkpoint."""
    import torch
    import transformers

    weights = Path(job["checkpoint"]) / "model.safetensors"
    stat = weights.stat()
    key = hashlib.sha256(f"{weights.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    path = Path(job["scratch"]) / f"traced-{key}.onnx"
    if path.is_file():
        return path
    config = transformers.AutoConfig.from_pretrained(job["checkpoint"])
    if config.model_type == "clip":
        raise PeerUnavailable("tracing is written for SigLIP checkpoints")
    model = transformers.SiglipVisionModel.from_pretrained(
        job["checkpoint"], dtype=torch.float32, attn_implementation="eager"
    )

    class Tower(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, pixels: Any) -> Any:
            return self.model(pixel_values=pixels).pooler_output

    side = config.vision_config.image_size
    partial = path.with_suffix(".partial")
    torch.onnx.export(
        Tower().eval(),
        (torch.zeros(1, 3, side, side),),
        str(partial),
        input_names=["pixels"],
        output_names=["vectors"],
        dynamic_axes={"pixels": {0: "N"}, "vectors": {0: "N"}},
        opset_version=18,
        dynamo=False,
    )
    partial.rename(path)
    return path


def _quantised(graph: Path, job: dict[str, Any]) -> Path:
    from onnxruntime import quantization

    static = job["variant"] == "static"
    path = graph.with_name(f"{graph.stem}-{job['variant']}{f'-{name_frames(job)}' if static else ''}.onnx")
    if path.is_file():
        return path
    partial = path.with_suffix(".partial")
    match job["variant"]:
        case "dynamic":
            quantization.quantize_dynamic(
                graph,
                partial,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
                weight_type=quantization.QuantType.QInt8,
            )
        case "static":
            quantization.quantize_static(
                str(graph),
                str(partial),
                _reader(job),
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
    partial.rename(path)
    return path


def calibration_frames(job: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the frames that the bundle was calibrated with; some of the measured ones where it was not."""
    if job.get("calibration"):
        return np.asarray(np.load(job["calibration"]), np.uint8)
    return np.asarray(np.load(job["frames"])[:_CALIBRATION_FRAMES], np.uint8)


def calibration_note(job: dict[str, Any]) -> str:
    """Say where the frames are from."""
    own = "the bundle's calibration frames" if job.get("calibration") else "the measured frames"
    return f"calibrated on {own}"


def name_frames(job: dict[str, Any]) -> str:
    """Return a short name of the calibration frames, so that another set makes another graph."""
    return hashlib.sha256(calibration_frames(job).tobytes()).hexdigest()[:12]


def _reader(job: dict[str, Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    frames = calibration_frames(job)
    mean, std = (np.asarray(x, np.float32) for x in normalisation(job["checkpoint"]))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._frames = iter(frames)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            frame = next(self._frames, None)
            return None if frame is None else {"pixels": prepare(frame[None], mean, std)}

    return Reader()
