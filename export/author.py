"""From the description of a tower to its ONNX graph: authored node by node from the weights, not traced.

Names are stable, because calibration addresses layers by them: ``image.block3.attention.qkv`` is a product,
``image.block3.attention.qkv.weight`` its constant [K, N], ``image.block3.attention.qkv.add`` the sum with its bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.author_resnet import author_resnet
from overflight.export.graph import Graph, finish, linear
from overflight.export.tower import (
    Activation,
    Attention,
    Block,
    Encoder,
    EndPool,
    ImageTower,
    Linear,
    MeanPool,
    Mlp,
    Norm,
    PositionPool,
    ProbePool,
    ResNetTower,
    TextTower,
    Weight,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Low enough that its softmax is zero, and still a half-precision number.
_NEVER = -10_000.0


def author_image(tower: ImageTower | ResNetTower, embedding: int) -> Graph:
    """Author ``frames`` uint8 ``[N, S, S, 3]`` RGB -> ``embeddings`` float32 ``[N, D]`` of unit length."""
    if isinstance(tower, ResNetTower):
        return author_resnet(tower, embedding)
    graph = Graph("image")
    side, patch, encoder = tower.side, tower.patch, tower.encoder
    across, cut = side // patch, side // patch * patch
    x = graph.take("frames", "uint8", ["N", side, side, 3])
    x = graph.node("image.cast", "Cast", x, to=1)  # 1: float32
    if cut < side:  # a convolution drops the rows and columns that fill no patch
        x = graph.node("image.cut", "Slice", x, graph.integers(0, 0), graph.integers(cut, cut), graph.integers(1, 2))
    x = graph.node("image.grid", "Reshape", x, graph.integers(0, across, patch, across, patch, 3))
    x = graph.node("image.gather", "Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    x = graph.node("image.flat", "Reshape", x, graph.integers(0, across * across, patch * patch * 3))
    x = graph.node("image.patches", "MatMul", x, graph.weight("image.patches.weight", _patch_product(tower)))
    if tower.class_token is not None:  # an empty row, which the sum below turns into the class token
        x = graph.node("image.class", "Pad", x, graph.integers(0, 1, 0, 0, 0, 0))
    x = graph.node("image.positions", "Add", x, graph.weight("image.positions.bias", _patch_offsets(tower)))
    if tower.norm_before is not None:
        x = _norm(graph, "image.norm_before", x, tower.norm_before)
    _encode(graph, x, encoder, embedding)
    return graph


def author_text(tower: TextTower, embedding: int) -> Graph:
    """Author ``tokens`` int64 ``[N, context]`` -> ``embeddings`` float32 ``[N, D]`` of unit length."""
    graph = Graph("text")
    encoder = tower.encoder
    tokens = graph.take("tokens", "int64", ["N", encoder.length])
    x = graph.node("text.tokens", "Gather", graph.weight("text.tokens.weight", tower.tokens), tokens)
    x = graph.node("text.positions", "Add", x, graph.weight("text.positions.bias", encoder.positions))
    mask = graph.weight("text.mask", _causal_mask(encoder.length)) if tower.causal else None
    _encode(graph, x, encoder, embedding, mask, tokens)
    return graph


def _encode(
    graph: Graph, x: str, encoder: Encoder, embedding: int, mask: str | None = None, tokens: str | None = None
) -> None:
    """Run the blocks, pool, project, and bring to unit length."""
    tower = graph.name
    for number, block in enumerate(encoder.blocks):
        x = _attend(graph, f"{tower}.block{number}", x, block, mask)
        if block is encoder.blocks[-1]:  # norms and MLP are per state: from here on only what is pooled counts
            x = _pick(graph, x, encoder, tokens)
        x = _feed_forward(graph, f"{tower}.block{number}", x, block)
    pool = encoder.pool
    if isinstance(pool, MeanPool) and pool.norm_after:
        x = _mean(graph, x, pool.start)
    x = _norm(graph, f"{tower}.norm", x, encoder.norm)
    if isinstance(pool, MeanPool) and not pool.norm_after:
        x = _mean(graph, x, pool.start)
    if isinstance(pool, ProbePool):
        x = _probe(graph, f"{tower}.head", x, pool)
    if encoder.projection is not None:
        x = linear(graph, f"{tower}.projection", x, encoder.projection)
    finish(graph, x, embedding)


def _mean(graph: Graph, x: str, start: int) -> str:
    """Average the states from ``start`` on."""
    name, end = f"{graph.name}.pooled", np.iinfo(np.int64).max
    if start:
        x = graph.node(f"{name}.states", "Slice", x, graph.integers(start), graph.integers(int(end)), graph.integers(1))
    return graph.node(name, "ReduceMean", x, graph.integers(1), keepdims=0)


def _patch_product(tower: ImageTower) -> Weight:
    """Fold the pixel constants in: ((x · rescale - mean) / std) · W = x · (W · rescale / std) - (mean / std) · W."""
    scale = np.tile(tower.pixels.rescale / np.asarray(tower.pixels.std), tower.patch**2)

    def read() -> Floats:
        product: Floats = (tower.patches.weight.read() * scale[:, None]).astype(np.float32)
        return product

    return Weight(tower.patches.weight.shape, read)


def _patch_offsets(tower: ImageTower) -> Weight:
    """Return what is added to every state: position, the patch product's bias, its share of the mean, class token."""
    pixels, encoder = tower.pixels, tower.encoder
    shift = np.tile(np.asarray(pixels.mean) / np.asarray(pixels.std), tower.patch**2)

    def read() -> Floats:
        bias = -(shift @ tower.patches.weight.read().astype(np.float64))
        if tower.patches.bias is not None:
            bias += tower.patches.bias.read()
        added = np.broadcast_to(bias, (encoder.length, encoder.width)).copy()
        if tower.class_token is not None:
            added[0] = tower.class_token.read()
        offsets: Floats = (added + encoder.positions.read()).astype(np.float32)
        return offsets

    return Weight((encoder.length, encoder.width), read)


def _causal_mask(length: int) -> Weight:
    return Weight((length, length), lambda: np.triu(np.full((length, length), _NEVER, dtype=np.float32), k=1))


def _norm(graph: Graph, name: str, x: str, norm: Norm) -> str:
    scale, shift = graph.weight(f"{name}.scale", norm.scale), graph.weight(f"{name}.shift", norm.shift)
    return graph.node(name, "LayerNormalization", x, scale, shift, axis=-1, epsilon=norm.epsilon)


def _attend(graph: Graph, name: str, x: str, block: Block, mask: str | None) -> str:
    """Author the first half of a block, in which states attend to each other."""
    y = _norm(graph, f"{name}.norm1", x, block.norm1)
    y = _attention(graph, f"{name}.attention", y, block.attention, mask)
    return graph.node(f"{name}.attention.residual", "Add", x, y)


def _feed_forward(graph: Graph, name: str, x: str, block: Block) -> str:
    """Author the second half, which treats each state alone."""
    y = _norm(graph, f"{name}.norm2", x, block.norm2)
    y = _mlp(graph, f"{name}.mlp", y, block.mlp)
    return graph.node(f"{name}.mlp.residual", "Add", x, y)


def _mlp(graph: Graph, name: str, x: str, mlp: Mlp) -> str:
    x = linear(graph, f"{name}.up", x, mlp.up)
    x = _activate(graph, f"{name}.activation", x, mlp.activation)
    return linear(graph, f"{name}.down", x, mlp.down)


def _activate(graph: Graph, name: str, x: str, activation: Activation) -> str:
    match activation:
        case "gelu":
            return graph.node(name, "Gelu", x, approximate="none")
        case "gelu-tanh":
            return graph.node(name, "Gelu", x, approximate="tanh")
        case "quick-gelu":
            steep = graph.node(f"{name}.steep", "Mul", x, graph.scalar(f"{graph.name}.steepness", 1.702))
            gate = graph.node(f"{name}.gate", "Sigmoid", steep)
            return graph.node(name, "Mul", x, gate)


def _attention(graph: Graph, name: str, x: str, attention: Attention, mask: str | None) -> str:
    width, heads = attention.output.weight.shape[0], attention.heads
    x = linear(graph, f"{name}.qkv", x, _joined(attention, width))
    graph.node(f"{name}.split", "Split", x, graph.integers(width, width, width), parts="qkv", axis=-1)
    by_head = graph.integers(0, 0, heads, width // heads)
    orders = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    q, k, v = (
        graph.node(
            f"{name}.{part}",
            "Transpose",
            graph.node(f"{name}.{part}.heads", "Reshape", f"{name}.split.{part}", by_head),
            perm=order,
        )
        for part, order in orders.items()
    )
    scores = graph.node(f"{name}.scores", "MatMul", q, k)
    if mask is not None:
        scores = graph.node(f"{name}.masked", "Add", scores, mask)
    shares = graph.node(f"{name}.shares", "Softmax", scores, axis=-1)
    mixed = graph.node(f"{name}.mixed", "MatMul", shares, v)
    mixed = graph.node(f"{name}.mixed.order", "Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.node(f"{name}.mixed.flat", "Reshape", mixed, graph.integers(0, 0, width))
    return linear(graph, f"{name}.out", mixed, attention.output)


def _joined(attention: Attention, width: int) -> Linear:
    """Join query, key and value into one product, the attention scale folded into the query."""
    scale = np.float32((width // attention.heads) ** -0.5)

    def weight() -> Floats:
        query, key, value = (part.weight.read() for part in (attention.query, attention.key, attention.value))
        return np.concatenate([query * scale, key, value], axis=1)

    def bias() -> Floats:
        query, key, value = (_bias(part) for part in (attention.query, attention.key, attention.value))
        return np.concatenate([query * scale, key, value])

    return Linear(Weight((width, 3 * width), weight), Weight((3 * width,), bias))


def _bias(linear: Linear) -> Floats:
    return np.zeros(linear.weight.shape[1], dtype=np.float32) if linear.bias is None else linear.bias.read()


def _pick(graph: Graph, x: str, encoder: Encoder, tokens: str | None) -> str:
    """Keep one state ``[N, W]`` of ``[N, length, W]``, unless a probe or a mean needs every one."""
    name = f"{graph.name}.pooled"
    match encoder.pool:
        case ProbePool() | MeanPool():
            return x
        case PositionPool(position):
            return graph.node(
                name, "Gather", x, graph.scalar(f"{name}.position", np.int64(position % encoder.length)), axis=1
            )
        case EndPool(end):
            assert tokens is not None
            return graph.node(name, "GatherND", x, _end(graph, tokens, end), batch_dims=1)


def _end(graph: Graph, tokens: str, end: int | None) -> str:
    """Find the position ``[N, 1]`` of the first end token, or of the highest id."""
    if end is not None:
        ends = graph.node("text.ends", "Equal", tokens, graph.scalar("text.end_token", np.int64(end)))
    tokens = graph.node("text.ends.numbers", "Cast", tokens if end is None else ends, to=6)  # 6: int32
    return graph.node("text.end", "ArgMax", tokens, axis=1, keepdims=1)


def _probe(graph: Graph, name: str, x: str, pool: ProbePool) -> str:
    """Attend with a constant query, so that only two small products meet every patch.

    With q constant, q·(x·K + k) = x·(K·q) + q·k, and a softmax does not see the constant q·k: the key product becomes
    ``[W, heads]``. Shares sum to one, so Σ share·(x·V + v) = (Σ share·x)·V + v: values are taken of one mixture per
    head instead of every patch, and v moves into the bias of the output product.
    """
    width, heads = pool.probe.shape[0], pool.attention.heads
    scores = graph.node(f"{name}.scores", "MatMul", x, graph.weight(f"{name}.scores.weight", _probe_scores(pool)))
    scores = graph.node(f"{name}.scores.order", "Transpose", scores, perm=[0, 2, 1])
    shares = graph.node(f"{name}.shares", "Softmax", scores, axis=-1)
    mixed = graph.node(f"{name}.mixed", "MatMul", shares, x)
    mixed = graph.node(f"{name}.mixed.heads", "Reshape", mixed, graph.integers(0, heads, 1, width))
    values = graph.node(f"{name}.value", "MatMul", mixed, graph.weight(f"{name}.value.weight", _by_head(pool)))
    values = graph.node(f"{name}.value.flat", "Reshape", values, graph.integers(0, width))
    x = linear(graph, f"{name}.out", values, _probe_output(pool))
    y = _norm(graph, f"{name}.norm", x, pool.norm)
    y = _mlp(graph, f"{name}.mlp", y, pool.mlp)
    return graph.node(f"{name}.mlp.residual", "Add", x, y)


def _probe_scores(pool: ProbePool) -> Weight:
    attention, width = pool.attention, pool.probe.shape[0]
    heads, depth = attention.heads, width // attention.heads

    def read() -> Floats:
        query = pool.probe.read().astype(np.float64) @ attention.query.weight.read() + _bias(attention.query)
        key = attention.key.weight.read().reshape(width, heads, depth)
        scores: Floats = np.einsum("whd,hd->wh", key, query.reshape(heads, depth) * depth**-0.5).astype(np.float32)
        return scores

    return Weight((width, heads), read)


def _by_head(pool: ProbePool) -> Weight:
    """Return the value product as ``[heads, W, W / heads]``."""
    width, heads = pool.probe.shape[0], pool.attention.heads
    value = pool.attention.value.weight
    return Weight(
        (heads, width, width // heads),
        lambda: np.ascontiguousarray(value.read().reshape(width, heads, width // heads).transpose(1, 0, 2)),
    )


def _probe_output(pool: ProbePool) -> Linear:
    output, value = pool.attention.output, pool.attention.value

    def bias() -> Floats:
        moved = _bias(value).astype(np.float64) @ output.weight.read()
        whole: Floats = (moved + _bias(output)).astype(np.float32)
        return whole

    return Linear(output.weight, Weight((output.weight.shape[1],), bias))
