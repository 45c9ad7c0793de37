"""Peaks: the fastest matrix product and the fastest copy of a machine, in the library of an engine."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]

# Rows, depth and columns of the products that are tried. No one shape is the fastest in every library and cache: a
# tower's own products fit into caches that a large square one does not. Each is repeated to the same amount of work.
SHAPES = ((1024, 2048, 2048), (512, 1024, 4096), (256, 1024, 1024))
OPERATIONS = 2 * 1024 * 2048 * 2048
COPY = 64 << 20  # past every private cache
AMOUNTS = {"fp32": float(OPERATIONS), "int8": float(OPERATIONS), "bytes": 2.0 * COPY}
_TRIES = 3

Library = Literal["onnxruntime", "openvino"]


def peak_calls(library: Library, threads: int) -> dict[str, Work]:
    """Return the calls whose times are the peaks: products in fp32 and int8, and a copy ("bytes").

    Of each precision the shape that runs fastest here is taken; ``AMOUNTS`` says what a call does.
    """
    source, target = np.ones(COPY, np.uint8), np.empty(COPY, np.uint8)
    single = [_product(library, threads, shape, integer=False) for shape in SHAPES]
    integer = [_product(library, threads, shape, integer=True) for shape in SHAPES]
    return {"fp32": _fastest(single), "int8": _fastest(integer), "bytes": lambda: np.copyto(target, source)}


def _product(library: Library, threads: int, shape: tuple[int, int, int], *, integer: bool) -> Work:
    """Return a product of this shape, repeated until it has done ``OPERATIONS``."""
    rows, depth, columns = shape
    dice = np.random.default_rng(0)
    bytes_in = integer and library == "onnxruntime"
    values = dice.integers(0, 255, (rows, depth), np.uint8) if bytes_in else dice.random((rows, depth), np.float32)
    model = _integer(library, shape) if integer else _single(shape)
    run = (_on_onnxruntime if library == "onnxruntime" else _on_openvino)(model, values, threads)
    return partial(_repeat, run, OPERATIONS // (2 * rows * depth * columns))


def _repeat(run: Work, times: int) -> None:
    for _ in range(times):
        run()


def _fastest(calls: list[Work]) -> Work:
    """Return the call with the shortest time, after one untimed call of each."""
    taken: list[int] = []
    for call in calls:
        call()
        spans = []
        for _ in range(_TRIES):
            began = time.perf_counter_ns()
            call()
            spans.append(time.perf_counter_ns() - began)
        taken.append(min(spans))
    return calls[taken.index(min(taken))]


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


def _single(shape: tuple[int, int, int]) -> bytes:
    import onnx

    weight = np.random.default_rng(2).standard_normal(shape[1:]).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model(shape, [node], {"w": weight}, onnx.TensorProto.FLOAT)


def _integer(library: Library, shape: tuple[int, int, int]) -> bytes:
    """The form that each library runs fastest: ONNX Runtime's own operator (u8·s8), OpenVINO's from Q/DQ (s8·s8)."""
    import onnx

    weight = np.random.default_rng(3).integers(-127, 127, shape[1:], np.int8)
    if library == "onnxruntime":
        nodes = [
            onnx.helper.make_node("MatMulInteger", ["x", "w"], ["sum"]),
            onnx.helper.make_node("Cast", ["sum"], ["y"], to=onnx.TensorProto.FLOAT),
        ]
        return _model(shape, nodes, {"w": weight}, onnx.TensorProto.UINT8)
    constants = {"w": weight, "s": np.float32(0.03), "z": np.int8(0)}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["b"]),
        onnx.helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    return _model(shape, nodes, constants, onnx.TensorProto.FLOAT)


def _model(shape: tuple[int, int, int], nodes: list[Any], constants: dict[str, Any], kind: int) -> bytes:
    import onnx

    rows, depth, columns = shape

    graph = onnx.helper.make_graph(
        nodes,
        "peak",
        [onnx.helper.make_tensor_value_info("x", kind, [rows, depth])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, columns])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())
