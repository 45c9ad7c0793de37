"""Emulation of half precision on a processor that has none.

ONNX Runtime's CPU provider computes an fp16 graph in fp32 from end to end and drops the roundings between (even with
every optimisation off), so an overflow or a cosine of 0.6 would never show. Casts that the graph itself asks for are
kept: here every tensor that a node writes in fp16 goes to fp16 and back. Sums inside a product stay in fp32, as they do
on a tensor core.
"""

from __future__ import annotations

import numpy as np

from overflight.calibration.graph import TowerGraph, load_onnx
from overflight.calibration.halve import LAYOUT

_EXACT = LAYOUT | {"DequantizeLinear"}


def emulate(encoded: bytes) -> bytes:
    """Return an fp32 graph that rounds as the given fp16 graph does."""
    onnx = load_onnx()
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(encoded))
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    tower = TowerGraph(inferred)
    for name, constant in tower.constants.items():
        if constant.data_type == half:
            tower.put(name, tower.array(name).astype(np.float32))
    nodes = []
    for node in inferred.graph.node:
        nodes.append(node)
        if node.op_type in _EXACT or kinds.get(node.output[0]) != half:
            continue
        output = node.output[0]
        node.output[0] = f"{output}.exact"
        if node.op_type == "Cast":
            node.attribute[0].i = single
        nodes += [
            onnx.helper.make_node("Cast", [f"{output}.exact"], [f"{output}.rounded"], f"{output}.rounded", to=half),
            onnx.helper.make_node("Cast", [f"{output}.rounded"], [output], f"{output}.widened", to=single),
        ]
    del inferred.graph.value_info[:]
    tower.replace_nodes(nodes)
    return tower.encoded()
