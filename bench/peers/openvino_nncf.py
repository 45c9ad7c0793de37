"""OpenVINO on the traced graph: fp32, and int8 as NNCF's post-training quantisation makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.peers.serve import LoadedPeer
from overflight.bench.peers.traced import calibration_frames, calibration_note, name_frames, prepare, trace, unit
from overflight.bench.peers.transformers_torch import normalisation


def load(job: dict[str, Any]) -> LoadedPeer:
    """Compile for one frame at a time; "nncf" quantises first (once per checkpoint, kept)."""
    import openvino

    graph = trace(job)
    versions = {"openvino": openvino.__version__}
    model: Any = openvino.Core().read_model(_quantised(graph, job) if job["variant"] == "nncf" else str(graph))
    if job["variant"] == "nncf":
        import nncf

        versions["nncf"] = nncf.__version__
    model.reshape([job["batch"], *(dim.get_length() for dim in list(model.inputs[0].partial_shape)[1:])])
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if job["threads"]:
        settings["INFERENCE_NUM_THREADS"] = job["threads"]
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    mean, std = (np.asarray(x, np.float32) for x in normalisation(job["checkpoint"]))

    def embed(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return unit(request.infer({0: prepare(frames, mean, std)}, share_inputs=True)[0])

    if job["variant"] == "fp32":
        return LoadedPeer(embed, versions, graph=str(graph))
    return LoadedPeer(embed, versions, note=calibration_note(job))


def _quantised(graph: Path, job: dict[str, Any]) -> str:
    path = graph.with_name(f"{graph.stem}-nncf-{name_frames(job)}.xml")
    if path.is_file():
        return str(path)
    import nncf
    import openvino

    mean, std = (np.asarray(x, np.float32) for x in normalisation(job["checkpoint"]))
    frames = [prepare(frame[None], mean, std) for frame in calibration_frames(job)]
    model = nncf.quantize(
        openvino.Core().read_model(str(graph)),
        nncf.Dataset(frames),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(frames),
    )
    partial = path.with_name(f"partial-{path.name}")
    openvino.save_model(model, str(partial), compress_to_fp16=False)
    partial.with_suffix(".bin").rename(path.with_suffix(".bin"))
    partial.rename(path)
    return str(path)
