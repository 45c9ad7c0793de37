"""Quantisation: explicit Q/DQ pairs before the products, int8 weights behind a DQ, everything else unchanged.

Symmetric (zero point 0), per tensor for what a product reads, per output channel for its weight: the rules under which
TensorRT, OpenVINO and ONNX Runtime all run the product in int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.calibration.clip import weight_levels, weight_scales
from overflight.calibration.graph import load_onnx
from overflight.calibration.smooth import smooth
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from overflight.calibration.graph import Product, TowerGraph
    from overflight.calibration.recipe import Recipe

_HEAD_SIZES = (16, 32, 64)  # TensorRT fuses int8 attention for these only, up to 512 tokens
_MOST_TOKENS = 512


def eligible(tower: TowerGraph) -> list[Product]:
    """Return the products that may become int8: those of the blocks.

    The patch product, the pooling head and the projection stay in float: they are few and the most sensitive.
    """
    return [product for product in tower.products() if product.block is not None]


def quantise(
    tower: TowerGraph,
    recipe: Recipe,
    smoothing: dict[str, NDArray[np.float32]],
    only: Collection[str] | None = None,
) -> TowerGraph:
    """Return the int8 form of an fp32 tower; ``only`` limits it to some products, all of them smoothed as ever."""
    made = tower.copy()
    products = {product.name: product for product in made.products()}
    for name, factors in smoothing.items():
        smooth(made, products[name], factors)
    scales = {one.name: one.scale for one in recipe.quantised() if only is None or one.name in only}
    nodes: list[Any] = []
    for node in made.model.graph.node:
        if node.name in scales:
            nodes += _quantised(made, node, scales[node.name])
        elif only is None and any(f"{node.name}.{side}" in recipe.attention for side in range(2)):
            nodes += _attention(made, node, recipe.attention)
        nodes.append(node)
    made.replace_nodes(nodes)
    made.drop(product.weight for product in products.values())
    return made


def _quantised(tower: TowerGraph, node: Any, scale: float) -> list[Any]:
    """Rewire a product to read a Q/DQ pair and an int8 weight; returns the nodes that go before it."""
    name, weight_name = node.name, node.input[1]
    weight = tower.array(weight_name)
    scales = weight_scales(weight)
    levels = tower.put(f"{weight_name}.int8", weight_levels(weight, scales))
    steps = tower.put(f"{weight_name}.scale", scales)
    zeros = tower.put(f"{weight_name}.zero", np.zeros(len(scales), np.int8))
    pair = _pair(tower, f"{name}.input", node.input[0], scale)
    weight_node = load_onnx().helper.make_node(
        "DequantizeLinear", [levels, steps, zeros], [f"{weight_name}.float"], f"{weight_name}.float", axis=1
    )
    node.input[0], node.input[1] = f"{name}.input.float", f"{weight_name}.float"
    return [*pair, weight_node]


def _attention(tower: TowerGraph, node: Any, scales: dict[str, float]) -> list[Any]:
    nodes = []
    for side in range(2):
        name = f"{node.name}.{side}"
        nodes += _pair(tower, name, node.input[side], scales[name])
        node.input[side] = f"{name}.float"
    return nodes


def _pair(tower: TowerGraph, name: str, reads: str, scale: float) -> list[Any]:
    step = tower.put(f"{name}.scale", np.array(scale, np.float32))
    zero = tower.put(f"{name}.zero", np.array(0, np.int8))
    make = load_onnx().helper.make_node
    return [
        make("QuantizeLinear", [reads, step, zero], [f"{name}.int8"], f"{name}.int8"),
        make("DequantizeLinear", [f"{name}.int8", step, zero], [f"{name}.float"], f"{name}.float"),
    ]


def attention_reads(tower: TowerGraph, tokens: int, depth: int) -> dict[str, str]:
    """Return what the attention preset quantises besides: both sides of scores and mixture, by name of the pair.

    Raises UsageError where TensorRT would not fuse it, which is slower than fp16.
    """
    if depth not in _HEAD_SIZES or tokens > _MOST_TOKENS:
        raise UsageError(
            f"attention in int8 needs heads of {_HEAD_SIZES} and at most {_MOST_TOKENS} tokens, this tower has "
            f"{depth} and {tokens}; calibrate without --attention"
        )
    return {
        f"{node.name}.{side}": node.input[side]
        for node in tower.model.graph.node
        if node.name.endswith((".attention.scores", ".attention.mixed")) and ".block" in node.name
        for side in range(2)
    }
