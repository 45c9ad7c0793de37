"""Peaks: the fastest matrix product and the fastest copy that a machine does, through the library of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]

ROWS, DEPTH, COLUMNS = 1024, 2048, 2048  # large enough that every library reaches its best, small enough for turns
COPY = 64 << 20  # past every private cache
AMOUNTS = {"fp32": 2.0 * ROWS * DEPTH * COLUMNS, "int8": 2.0 * ROWS * DEPTH * COLUMNS, "bytes": 2.0 * COPY}

Library = Literal["onnxruntime", "openvino"]


def peak_calls(library: Library, threads: int) -> dict[str, Work]:
    """Return the calls whose times are the peaks: products in fp32 and int8, and a copy ("bytes")."""
    values = np.random.default_rng(0).standard_normal((ROWS, DEPTH)).astype(np.float32)
    levels = np.random.default_rng(1).integers(0, 255, (ROWS, DEPTH), np.uint8)
    start = _on_onnxruntime if library == "onnxruntime" else _on_openvino
    single = start(_single(), values, threads)
    integer = start(_integer(library), levels if library == "onnxruntime" else values, threads)
    source, target = np.ones(COPY, np.uint8), np.empty(COPY, np.uint8)
    return {"fp32": single, "int8": integer, "bytes": lambda: np.copyto(target, source)}


def _on_onnxruntime(model: bytes, values: Any, threads: int) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": values})


def _on_openvino(model: bytes, values: Any, threads: int) -> Work:
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer({0: values}, share_inputs=True, share_outputs=True)


def _single() -> bytes:
    import onnx

    weight = np.random.default_rng(2).standard_normal((DEPTH, COLUMNS)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], {"w": weight}, onnx.TensorProto.FLOAT)


def _integer(library: Library) -> bytes:
    """The form that each library runs fastest: ONNX Runtime's own operator (u8·s8), OpenVINO's from Q/DQ (s8·s8)."""
    import onnx

    weight = np.random.default_rng(3).integers(-127, 127, (DEPTH, COLUMNS), np.int8)
    if library == "onnxruntime":
        nodes = [
            onnx.helper.make_node("MatMulInteger", ["x", "w"], ["sum"]),
            onnx.helper.make_node("Cast", ["sum"], ["y"], to=onnx.TensorProto.FLOAT),
        ]
        return _model(nodes, {"w": weight}, onnx.TensorProto.UINT8)
    constants = {"w": weight, "s": np.float32(0.03), "z": np.int8(0)}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["b"]),
        onnx.helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    return _model(nodes, constants, onnx.TensorProto.FLOAT)


def _model(nodes: list[Any], constants: dict[str, Any], kind: int) -> bytes:
    import onnx

    graph = onnx.helper.make_graph(
        nodes,
        "peak",
        [onnx.helper.make_tensor_value_info("x", kind, [ROWS, DEPTH])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [ROWS, COLUMNS])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())
