"""Deriving: from the bundle's int8 graph to the forms that a processor's libraries are fast on.

The bundle's graph is symmetric (s8·s8) with fp16 scales, as TensorRT wants it. ONNX Runtime leaves most of its products
in float; it is two to four times faster with unsigned inputs. OpenVINO takes both, but x86 multiplies u8·s8 (VNNI):
signed inputs are shifted there at every step, and with unsigned ones its products take a seventh less. Shifting an
input's levels by 128 changes no value.

OpenVINO also folds scale and bias into a product whose answer is used whole, and not where queries, keys and values are
cut from one answer; one product for each costs a few percent less. TensorRT turns the weight of such a joined product
into floats in every frame and multiplies in half precision; parted, all of its products run in int8. Cutting a weight's
columns changes no value either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from overflight.runtime.errors import missing_extra

if TYPE_CHECKING:
    from pathlib import Path

Form = Literal["static", "dynamic", "unsigned", "parted"]
_CONTRIB = "com.microsoft"


def derive(source: Path, target: Path, form: Form) -> None:
    """Write a form of a graph.

    For ONNX Runtime ``static`` has unsigned inputs with the ranges of calibration, ``dynamic`` finds the ranges of each
    frame. For OpenVINO ``unsigned`` has unsigned inputs too, but inside attention, and a product for each of queries,
    keys and values. For TensorRT ``parted`` has those products too, and stays symmetric.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "export") from error
    model = onnx.load(str(source))
    match form:
        case "static":
            _widen(onnx, model.graph)
            _shift(onnx, model.graph)
        case "dynamic":
            _widen(onnx, model.graph)
            _measure_at_run_time(onnx, model)
        case "parted":
            _part(onnx, model.graph)
        case "unsigned":
            _part(onnx, model.graph)
            _shift(onnx, model.graph, but=_mixing(model.graph))
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


def _shift(onnx: Any, graph: Any, but: frozenset[str] = frozenset()) -> None:
    """Give every quantised input unsigned levels around 128; ``but`` names the ones that keep theirs."""
    constants = {constant.name: constant for constant in graph.initializer}
    shifted: dict[str, str] = {}  # what a Q writes -> the name of its new zero
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] not in but:
            zeros = np.full(tuple(constants[node.input[2]].dims), 128, np.uint8)
            node.input[2] = shifted[node.output[0]] = f"{node.output[0]}.unsigned"
            graph.initializer.append(onnx.numpy_helper.from_array(zeros, node.input[2]))
        elif node.op_type == "DequantizeLinear" and node.input[0] in shifted:
            node.input[2] = shifted[node.input[0]]
    _drop_unused(graph)


def _mixing(graph: Any) -> frozenset[str]:
    """Return the levels of products without a weight: OpenVINO computes those in float where they are unsigned."""
    writers = {output: node for node in graph.node for output in node.output}
    constants = {constant.name for constant in graph.initializer}
    products = (node for node in graph.node if node.op_type == "MatMul")
    levels = ({writers[name].input[0] for name in product.input if name in writers} for product in products)
    return frozenset(name for pair in levels if not pair & constants for name in pair)


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


def _part(onnx: Any, graph: Any) -> None:
    """Replace each quantised product whose biased answer is split by one product for each part."""
    writers = {output: node for node in graph.node for output in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    array = onnx.numpy_helper.to_array
    replaced: dict[str, list[Any]] = {}
    for split in (node for node in graph.node if node.op_type == "Split"):
        add = writers[split.input[0]]
        product = writers[add.input[0]]
        if (add.op_type, product.op_type) != ("Add", "MatMul"):
            continue
        weight = writers.get(product.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":  # a product that stayed in float
            continue
        cuts = np.cumsum(array(constants[split.input[1]]))[:-1]
        whole = (*weight.input, add.input[1])  # levels, scales, zeros, bias: the answer's numbers are the last axis
        parts = zip(*(np.split(array(constants[name]), cuts, axis=-1) for name in whole), strict=True)
        nodes = replaced[split.name] = []
        for output, values in zip(split.output, parts, strict=True):
            names = [f"{output}.{name}" for name in ("levels", "scales", "zeros", "bias")]
            for name, value in zip(names, values, strict=True):
                graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
            for kind, reads, writes in (
                ("DequantizeLinear", names[:3], f"{output}.weight"),
                ("MatMul", [product.input[0], f"{output}.weight"], f"{output}.product"),
                ("Add", [f"{output}.product", names[3]], output),
            ):
                axis = {"axis": 1} if kind == "DequantizeLinear" else {}
                nodes.append(onnx.helper.make_node(kind, reads, [writes], writes, **axis))
        replaced |= {node.name: [] for node in (add, product, weight)}
    kept = [new for node in graph.node for new in replaced.get(node.name, [node])]
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    needed = {name for node in graph.node for name in node.input}
    for constant in [one for one in graph.initializer if one.name not in needed]:
        graph.initializer.remove(constant)
