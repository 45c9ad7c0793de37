"""Deriving: from the bundle's int8 graph to the forms that ONNX Runtime's CPU kernels are fast on.

The bundle's graph is symmetric (s8·s8) with fp16 scales, as TensorRT wants it. ONNX Runtime leaves most of its products
in float; it is two to four times faster with unsigned inputs. Shifting an input's levels by 128 changes no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from overflight.runtime.errors import missing_extra

if TYPE_CHECKING:
    from pathlib import Path

Form = Literal["static", "dynamic"]
_CONTRIB = "com.microsoft"


def derive(source: Path, target: Path, form: Form) -> None:
    """Write the ``static`` (u8·s8, the ranges of calibration) or ``dynamic`` (ranges of each frame) form of a graph."""
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "export") from error
    model = onnx.load(str(source))
    _widen(onnx, model.graph)
    match form:
        case "static":
            _shift(onnx, model.graph)
        case "dynamic":
            _measure_at_run_time(onnx, model)
    target.write_bytes(model.SerializeToString())


def _widen(onnx: Any, graph: Any) -> None:
    """Make every half-precision constant and cast single: the processor would convert them at every step."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for constant in graph.initializer:
        if constant.data_type == half:
            array = onnx.numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == half:
            node.attribute[0].i = single


def _shift(onnx: Any, graph: Any) -> None:
    """Give every quantised input unsigned levels around 128."""
    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for constant in graph.initializer:
        if constant.name in zeros:
            shape = tuple(constant.dims)
            constant.CopyFrom(onnx.numpy_helper.from_array(np.full(shape, 128, np.uint8), constant.name))


def _measure_at_run_time(onnx: Any, model: Any) -> None:
    """Replace each product with its Q/DQ pairs and bias by one node that finds its input's range itself."""
    graph = model.graph
    writers = {output: node for node in graph.node for output in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    plain = {  # what a pair of Q and DQ writes -> what it reads
        node.output[0]: writers[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in writers
    }
    biases = {node.input[0]: node for node in graph.node if node.op_type == "Add" and node.input[1] in constants}
    nodes, folded = [], set()
    for node in graph.node:
        weight = writers.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants:
            levels, scales, zero = weight.input
            bias = biases.get(node.output[0])
            if bias is not None and len(constants[bias.input[1]].dims) == 1:
                folded.add(bias.name)
                inputs, output = [levels, scales, zero, bias.input[1]], bias.output[0]
            else:
                inputs, output = [levels, scales, zero], node.output[0]
            reads = plain.get(node.input[0], node.input[0])
            nodes.append(
                onnx.helper.make_node("DynamicQuantizeMatMul", [reads, *inputs], [output], node.name, domain=_CONTRIB)
            )
        elif node.name not in folded and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            for index, name in enumerate(node.input):
                node.input[index] = plain.get(name, name)
            nodes.append(node)
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    model.opset_import.append(onnx.helper.make_opsetid(_CONTRIB, 1))
