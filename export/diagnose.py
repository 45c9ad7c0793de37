"""Diagnosing: which product of a quantised graph is wrong, when its engine failed the gate.

Each product is judged by itself: what it wrote against what its fp32 weight makes of the very same input, so that an
error from further up does not count against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines import REFERENCE
from overflight.runtime.engines.ort import EXACT_PRODUCTS, load_library
from overflight.runtime.errors import missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

    Factors = dict[str, NDArray[np.float32]]

SMOOTHING = "calibration/smoothing.safetensors"
_PROBES = 2  # frames: a wrong product is wrong on every one
_STANDS_OUT = 2.0  # times the error of the middle product


@dataclass(frozen=True, slots=True)
class Suspect:
    """A product, its relative output error ‖int8 - fp32‖ / ‖fp32‖, and how that compares with the middle product's."""

    name: str
    error: float
    times_median: float


def blame(bundle: Bundle, graph: str, frames: NDArray[np.uint8]) -> str:
    """Say in a few words which product made a quantised graph fail."""
    worst = diagnose(bundle, graph, frames)[0]
    if worst.times_median < _STANDS_OUT:
        return f"no single product stands out, the worst is {worst.name}"
    return f"look at {worst.name}: its error is {worst.error:.0%}, {worst.times_median:.0f} times the middle product's"


def diagnose(bundle: Bundle, graph: str, frames: NDArray[np.uint8]) -> list[Suspect]:
    """Return every product of the bundle's int8 ``graph``, the most wrong one first."""
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "export") from error
    model, exact = onnx.load(str(bundle.file(graph))), onnx.load(str(bundle.file(REFERENCE)))
    inputs = {node.name: node.input for node in exact.graph.node}
    constants = {constant.name: constant for constant in exact.graph.initializer}
    smoothing = _smoothing(bundle)
    products = _products(model)
    session = _watch(onnx, model, sorted({name for pair in products.values() for name in pair}))
    names = [output.name for output in session.get_outputs()]
    errors = dict.fromkeys(products, 0.0)
    for frame in frames[:_PROBES]:
        seen = dict(zip(names, session.run(names, {"frames": frame[None]}), strict=True))
        for name, (reads, writes) in products.items():
            weight = _smoothed(name, onnx.numpy_helper.to_array(constants[inputs[name][1]]), smoothing)
            expected = seen[reads].astype(np.float32).reshape(-1, len(weight)) @ weight
            lost = seen[writes].astype(np.float32).reshape(expected.shape) - expected
            errors[name] += float(np.linalg.norm(lost) / max(float(np.linalg.norm(expected)), 1e-9)) / _PROBES
    middle = max(float(np.median(list(errors.values()))), 1e-9)
    return sorted((Suspect(name, one, one / middle) for name, one in errors.items()), key=lambda one: -one.error)


def _products(model: Any) -> dict[str, tuple[str, str]]:
    """Return each quantised product's tensors: what goes into its Q/DQ pair, and what it writes."""
    writers = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type != "MatMul" or not all(name in writers for name in node.input):
            continue
        pair, weight = (writers[name] for name in node.input)
        if pair.op_type == weight.op_type == "DequantizeLinear":
            quantiser = writers.get(pair.input[0])
            if quantiser is not None and weight.input[0] not in writers:
                found[node.name] = (quantiser.input[0], node.output[0])
    return found


def _smoothing(bundle: Bundle) -> Factors:
    from safetensors.numpy import load

    return load(bundle.file(SMOOTHING).read_bytes()) if SMOOTHING in bundle.manifest.files else {}


def _smoothed(name: str, weight: NDArray[np.float32], smoothing: Factors) -> NDArray[np.float32]:
    """Return a weight ``[K, N]`` as calibration smoothed it: its rows, and the values that the next product mixes."""
    made = weight * smoothing[name][:, None] if name in smoothing else weight.copy()
    mixes = smoothing.get(name.removesuffix("qkv") + "out") if name.endswith(".attention.qkv") else None
    if mixes is not None:
        made[:, -len(mixes) :] /= mixes
    return made


def _watch(onnx: Any, model: Any, names: list[str]) -> Any:
    onnxruntime = load_library()
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_PRODUCTS)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
