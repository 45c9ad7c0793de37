"""The floor: the least that a graph must compute and move, at the machine's measured peak."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.row import Floor
from overflight.runtime.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_WIDTH = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2, 11: 8, 16: 2}  # bytes of an element, by ONNX's data type
_INTEGER = frozenset({"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeMatMul", "QGemm"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "MatMulIntegerToFloat"})


@dataclass(frozen=True)
class Work:
    """What one batch costs at least: ``operations`` of products by precision, ``bytes`` read and written once."""

    operations: dict[str, int]
    bytes: int


def count(graph: Path, batch: int = 1) -> Work:
    """Count a graph's work for one batch.

    Operations are those of matrix products and convolutions, two per multiply-add, as model cards count them; norms,
    softmax and activations are left out (below 1 % of a tower). Bytes are the constants, the input and the output, each
    once: intermediate values may stay in a cache. Raises UsageError where a product's shape cannot be known.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "export") from error
    model = onnx.load(str(graph), load_external_data=False)
    _fix_batch(model.graph, batch)
    model = onnx.shape_inference.infer_shapes(_hollow(onnx, model))
    shapes = _shapes(model.graph)
    quantised = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    operations: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS | _INTEGER:
            continue
        integer = node.op_type in _INTEGER or set(node.input[:2]) <= quantised or node.op_type == "MatMulIntegerToFloat"
        kind = "int8" if integer else _float_kind(model.graph, node)
        operations[kind] += _operations(node, shapes, graph)
    constants = {constant.name for constant in model.graph.initializer}
    moved = sum(_constant_bytes(constant) for constant in model.graph.initializer)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in constants:
            continue
        moved += math.prod(shapes.get(value.name) or [0]) * _WIDTH.get(value.type.tensor_type.elem_type, 4)
    return Work(dict(operations), moved)


def floor_of(
    work: Work, samples: Sequence[int], peaks: Mapping[str, Sequence[int]], amounts: dict[str, float]
) -> Floor:
    """Set samples against the peaks that were sampled in the same turns.

    ``peaks`` holds the nanoseconds of each peak's call, ``amounts`` how many operations or bytes one call does. The
    share is the median over pairs, so that a busy moment slows both. A precision without a peak of its own is held
    against fp32's.
    """
    keys = {kind: kind if kind in peaks else "fp32" for kind in work.operations}
    took = {kind: np.asarray(peaks[key], np.float64) / amounts[key] for kind, key in keys.items()}
    compute = sum((amount * took[kind] for kind, amount in work.operations.items()), np.zeros(len(samples)))
    move = work.bytes * np.asarray(peaks["bytes"], np.float64) / amounts["bytes"]
    floors = np.maximum(compute, move)
    per_s = {key: float(amounts[key] / np.median(ns) * 1e9) for key, ns in peaks.items()}
    share = float(np.median(floors / np.asarray(samples, np.float64)))
    return Floor(work.operations, work.bytes, per_s, float(np.median(floors)), share)


def _fix_batch(graph: Any, batch: int) -> None:
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.HasField("dim_value"):
            first.ClearField("dim_param")
            first.dim_value = batch
    del graph.value_info[:]


def _hollow(onnx: Any, model: Any) -> Any:
    """Turn large constants into inputs, so that inferring shapes does not copy a gigabyte; their sizes stay known."""
    hollow = onnx.ModelProto()
    hollow.CopyFrom(model)
    for constant in hollow.graph.initializer:
        if math.prod(constant.dims) > 1024:
            hollow.graph.input.append(
                onnx.helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
            )
            constant.ClearField("raw_data")
    return hollow


def _shapes(graph: Any) -> dict[str, list[int]]:
    known = {constant.name: list(constant.dims) for constant in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            known.setdefault(value.name, [dim.dim_value for dim in dims])
    return known


def _operations(node: Any, shapes: dict[str, list[int]], graph: Path) -> int:
    left, out = shapes.get(node.input[0]), shapes.get(node.output[0])
    if node.op_type.endswith("Conv") or node.op_type.startswith("Conv"):
        weight = shapes.get(node.input[1])
        if weight is not None and out is not None:
            return int(2 * math.prod(out) * math.prod(weight[1:]))
    elif left is not None:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        depth = left[0] if transposed else left[-1]
        right = shapes.get(node.input[1])
        if out is None and right is not None:  # contributed operators have no shape inference
            out = [*left[:-1], right[-1]]
        if out is not None:
            return int(2 * math.prod(out) * depth)
    raise UsageError(f"{graph}: the shapes of {node.op_type} {node.name!r} are unknown, so its work cannot be counted")


def _float_kind(graph: Any, node: Any) -> str:
    halves = {constant.name for constant in graph.initializer if constant.data_type == 10}
    halves |= {value.name for value in graph.value_info if value.type.tensor_type.elem_type == 10}
    return "fp16" if set(node.input) & halves else "fp32"


def _constant_bytes(constant: Any) -> int:
    return int(math.prod(constant.dims) * _WIDTH.get(constant.data_type, 4))
