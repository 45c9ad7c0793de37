"""From the description of CLIP's ModifiedResNet to its ONNX graph: convolutions, then attention pooling.

Pictures are normalised in the graph before the first convolution, because its padding is zero after the normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.graph import Graph, finish, linear
from overflight.export.tower import Weight

if TYPE_CHECKING:
    from overflight.export.tower import Attention, Bottleneck, Convolution, Linear, Pixels, ResNetTower


def author_resnet(tower: ResNetTower, embedding: int) -> Graph:
    """Author ``frames`` uint8 ``[N, S, S, 3]`` RGB -> ``embeddings`` float32 ``[N, D]`` of unit length."""
    graph = Graph("image")
    x = graph.take("frames", "uint8", ["N", tower.side, tower.side, 3])
    x = _normalise(graph, x, tower.pixels)
    for number, convolution in enumerate(tower.stem):
        x = _convolve(graph, f"image.stem{number}", x, convolution)
    x = _average(graph, "image.stem.average", x, 2)
    for number, block in enumerate(tower.blocks):
        x = _bottleneck(graph, f"image.block{number}", x, block)
    x = _pool(graph, x, tower)
    finish(graph, x, embedding)
    return graph


def _normalise(graph: Graph, x: str, pixels: Pixels) -> str:
    scale = np.asarray(pixels.rescale / np.asarray(pixels.std), dtype=np.float32)
    shift = np.asarray(-np.asarray(pixels.mean) / np.asarray(pixels.std), dtype=np.float32)
    x = graph.node("image.cast", "Cast", x, to=1)  # 1: float32
    x = graph.node("image.scaled", "Mul", x, graph.weight("image.scaled.scale", Weight((3,), lambda: scale)))
    x = graph.node("image.normal", "Add", x, graph.weight("image.normal.shift", Weight((3,), lambda: shift)))
    return graph.node("image.planes", "Transpose", x, perm=[0, 3, 1, 2])


def _convolve(graph: Graph, name: str, x: str, convolution: Convolution, *, relu: bool = True) -> str:
    size = convolution.weight.shape[2]
    weight, bias = graph.weight(f"{name}.weight", convolution.weight), graph.weight(f"{name}.bias", convolution.bias)
    stride = [convolution.stride, convolution.stride]
    x = graph.node(name, "Conv", x, weight, bias, kernel_shape=[size, size], pads=[size // 2] * 4, strides=stride)
    return graph.node(f"{name}.relu", "Relu", x) if relu else x


def _bottleneck(graph: Graph, name: str, x: str, block: Bottleneck) -> str:
    shortcut = x
    x = _convolve(graph, f"{name}.first", x, block.first)
    x = _convolve(graph, f"{name}.second", x, block.second)
    if block.stride > 1:
        x = _average(graph, f"{name}.average", x, block.stride)
        shortcut = _average(graph, f"{name}.shortcut.average", shortcut, block.stride)
    x = _convolve(graph, f"{name}.third", x, block.third, relu=False)
    if block.shortcut is not None:
        shortcut = _convolve(graph, f"{name}.shortcut", shortcut, block.shortcut, relu=False)
    x = graph.node(f"{name}.residual", "Add", x, shortcut)
    return graph.node(f"{name}.relu", "Relu", x)


def _average(graph: Graph, name: str, x: str, size: int) -> str:
    return graph.node(name, "AveragePool", x, kernel_shape=[size, size], strides=[size, size])


def _pool(graph: Graph, x: str, tower: ResNetTower) -> str:
    """Attend with the mean of all cells as the query; cells and mean are keys and values."""
    name, cells = "image.head", tower.positions.shape[0] - 1
    x = graph.node(f"{name}.flat", "Reshape", x, graph.integers(0, tower.width, cells))
    x = graph.node(f"{name}.cells", "Transpose", x, perm=[0, 2, 1])
    mean = graph.node(f"{name}.mean", "ReduceMean", x, graph.integers(1), keepdims=1)
    x = graph.node(f"{name}.states", "Concat", mean, x, axis=1)
    x = graph.node(f"{name}.positions", "Add", x, graph.weight(f"{name}.positions.bias", tower.positions))
    query = graph.node(f"{name}.query.state", "Slice", x, graph.integers(0), graph.integers(1), graph.integers(1))
    return _attend(graph, name, query, x, tower.attention, tower.width)


def _attend(graph: Graph, name: str, query: str, states: str, attention: Attention, width: int) -> str:
    by_head = graph.integers(0, -1, attention.heads, width // attention.heads)

    def heads(part: str, x: str, product: Linear, order: list[int]) -> str:
        x = linear(graph, f"{name}.{part}", x, product)
        x = graph.node(f"{name}.{part}.heads", "Reshape", x, by_head)
        return graph.node(f"{name}.{part}.order", "Transpose", x, perm=order)

    q = heads("query", query, attention.query, [0, 2, 1, 3])
    k = heads("key", states, attention.key, [0, 2, 3, 1])
    v = heads("value", states, attention.value, [0, 2, 1, 3])
    scale = graph.scalar(f"{name}.scale", float((width // attention.heads) ** -0.5))
    scores = graph.node(f"{name}.scores", "Mul", graph.node(f"{name}.products", "MatMul", q, k), scale)
    shares = graph.node(f"{name}.shares", "Softmax", scores, axis=-1)
    mixed = graph.node(f"{name}.mixed", "MatMul", shares, v)
    mixed = graph.node(f"{name}.mixed.order", "Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.node(f"{name}.mixed.flat", "Reshape", mixed, graph.integers(0, width))
    return linear(graph, f"{name}.out", mixed, attention.output)
