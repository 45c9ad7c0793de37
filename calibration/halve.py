"""Half precision: products in fp16, and in fp32 what fp16 would break.

Norms, softmaxes and the final length stay in fp32 always (naive fp16 leaves SigLIP a cosine of 0.6); any other node,
the sums of the residual stream above all, when its tensor was seen near the end of half precision's range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.calibration.graph import load_onnx

if TYPE_CHECKING:
    from collections.abc import Collection

    from overflight.calibration.graph import TowerGraph

SAFE = 8192.0  # an eighth of half precision's largest number: other frames may reach further
_ALWAYS_FULL = frozenset({"LayerNormalization", "Softmax", "ReduceL2", "Div"})
LAYOUT = frozenset({"Reshape", "Transpose", "Split", "Slice", "Gather", "Pad", "Concat", "Identity"})
_CARRIES = LAYOUT | {"QuantizeLinear", "DequantizeLinear"}  # what they write is as large as what they read
_PIXEL_SHIFT = 128.0  # a power of two, so exact: folded pixel constants would be subnormal numbers in half precision


def beyond(extremes: dict[str, float], limit: float = SAFE) -> tuple[str, ...]:
    """Return the tensors whose range half precision cannot be trusted with."""
    return tuple(sorted(name for name, largest in extremes.items() if not largest < limit))


def halve(tower: TowerGraph, full: Collection[str] = ()) -> TowerGraph:
    """Return the mixed fp16 form of a tower, fp32 or with Q/DQ pairs.

    ``full`` names tensors that half precision cannot hold: what writes them and what reads them is kept in fp32.
    """
    made = tower.copy()
    _lift_pixels(made)
    rewriter = _Rewriter(made, set(full))
    for node in list(made.model.graph.node):
        rewriter.take(node)
    rewriter.finish()
    return made


def _lift_pixels(tower: TowerGraph) -> None:
    """Divide pixels by a power of two and multiply the patch product by it."""
    weight = "image.patches.weight"
    if weight not in tower.constants:
        return
    shift = tower.put("image.pixel_shift", np.array(1 / _PIXEL_SHIFT, np.float32))
    tower.put(weight, tower.array(weight) * np.float32(_PIXEL_SHIFT))
    nodes = []
    for node in tower.model.graph.node:
        nodes.append(node)
        if node.name == "image.cast":
            output = node.output[0]
            node.output[0] = f"{output}.raw"
            nodes.append(load_onnx().helper.make_node("Mul", [f"{output}.raw", shift], [output], f"{output}.shifted"))
    tower.replace_nodes(nodes)


class _Rewriter:
    """Walks the nodes in order, giving every float tensor a type and casting where two meet."""

    def __init__(self, tower: TowerGraph, full: set[str]) -> None:
        self._onnx = load_onnx()
        self._half: int = self._onnx.TensorProto.FLOAT16
        self._float: int = self._onnx.TensorProto.FLOAT
        self._tower = tower
        self._full = full
        self._kinds: dict[str, int] = {}
        self._nodes: list[Any] = []
        self._constants: set[str] = set()

    def take(self, node: Any) -> None:
        loud = any(name in self._full for name in node.input)
        match node.op_type:
            case "Cast":
                kind = self._half if node.attribute[0].i == self._float else node.attribute[0].i
                node.attribute[0].i = kind
            case "QuantizeLinear" | "DequantizeLinear":
                kind = self._float if loud else self._half
                self._read(node, kind)
            case layout if layout in LAYOUT:
                kind = self._kinds.get(node.input[0], self._half)
            case operator:
                outputs_loud = any(name in self._full for name in node.output)
                kind = self._float if operator in _ALWAYS_FULL or loud or outputs_loud else self._half
                self._read(node, kind)
        if loud and node.op_type in _CARRIES:
            self._full.update(node.output)
        self._kinds.update(dict.fromkeys(node.output, kind))
        self._nodes.append(node)

    def _read(self, node: Any, kind: int) -> None:
        for index, name in enumerate(node.input):
            constant = self._tower.constants.get(name)
            if constant is not None:
                if constant.data_type == self._float and kind == self._half:
                    node.input[index] = self._halved(name)
            elif self._kinds.get(name, kind) in (self._half, self._float):
                node.input[index] = self._cast(name, kind)

    def _halved(self, name: str) -> str:
        made = f"{name}.half"
        if made not in self._tower.constants:
            largest = np.finfo(np.float16).max
            self._tower.put(made, np.clip(self._tower.array(name), -largest, largest).astype(np.float16))
            self._constants.add(name)
        return made

    def _cast(self, name: str, kind: int) -> str:
        if not name or self._kinds.get(name, kind) == kind:
            return name
        made = f"{name}.{'half' if kind == self._half else 'full'}"
        if made not in self._kinds:
            self._nodes.append(self._onnx.helper.make_node("Cast", [name], [made], made, to=kind))
            self._kinds[made] = kind
        return made

    def finish(self) -> None:
        for output in self._tower.model.graph.output:
            if self._kinds[output.name] == self._half:
                inner = f"{output.name}.inner"
                for node in self._nodes:
                    node.output[:] = [inner if name == output.name else name for name in node.output]
                self._nodes.append(
                    self._onnx.helper.make_node("Cast", [inner], [output.name], f"{output.name}.full", to=self._float)
                )
        self._tower.replace_nodes(self._nodes)
        self._tower.drop(self._constants)
