"""The tensor names of OpenCLIP's transformers, image and text alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.layouts.transformers_tensors import unpack
from overflight.export.tower import Activation, Attention, Block, Encoder, Linear, Mlp, Norm, Pool, Weight
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint

# Long-CLIP keeps the first positions as OpenAI trained them, and takes the rest from a second table.
_LONG_CLIP_KEPT = 20


class Reader:
    """Finds the tensors of one tower, whose names begin with ``prefix``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prefix: str,
        width: int,
        inner: int,
        heads: int,
        activation: Activation,
        epsilon: float,
        *,
        layer_scale: bool,
    ) -> None:
        if width < 1 or heads < 1 or width % heads:
            raise UsageError(f"{checkpoint.source}: {heads} heads do not make a tower of width {width}")
        self._checkpoint, self._prefix = checkpoint, prefix
        self._width, self._inner, self._heads = width, inner, heads
        self._activation, self._epsilon, self._layer_scale = activation, epsilon, layer_scale

    def weight(self, name: str, *shape: int) -> Weight:
        """Return a tensor of this tower."""
        return self._checkpoint.weight(f"{self._prefix}{name}", *shape)

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        """Return a product with its bias."""
        return Linear(self.weight(f"{name}.weight", outputs, inputs).transposed, self.weight(f"{name}.bias", outputs))

    def norm(self, name: str) -> Norm:
        """Return a layer normalisation."""
        scale, shift = (self.weight(f"{name}.{end}", self._width) for end in ("weight", "bias"))
        return Norm(scale, shift, self._epsilon)

    def encoder(self, layers: int, positions: Weight, norm: str, pool: Pool, projection: Linear | None) -> Encoder:
        """Describe what both towers share."""
        if layers < 1:
            raise UsageError(f"{self._checkpoint.source}: {layers} layers; expected at least one")
        return Encoder(
            length=positions.shape[0],
            width=self._width,
            positions=positions,
            blocks=tuple(self._block(number) for number in range(layers)),
            norm=self.norm(norm),
            pool=pool,
            projection=projection,
        )

    def _block(self, number: int) -> Block:
        name, width = f"transformer.resblocks.{number}", self._width
        query, key, value = unpack(
            self.weight(f"{name}.attn.in_proj_weight", 3 * width, width),
            self.weight(f"{name}.attn.in_proj_bias", 3 * width),
        )
        output = self._scaled(self.linear(f"{name}.attn.out_proj", width, width), f"{name}.ls_1.gamma")
        up = self.linear(f"{name}.mlp.c_fc", width, self._inner)
        down = self._scaled(self.linear(f"{name}.mlp.c_proj", self._inner, width), f"{name}.ls_2.gamma")
        return Block(
            norm1=self.norm(f"{name}.ln_1"),
            attention=Attention(query, key, value, output, self._heads),
            norm2=self.norm(f"{name}.ln_2"),
            mlp=Mlp(up, down, self._activation),
        )

    def _scaled(self, linear: Linear, gamma: str) -> Linear:
        return linear.scaled(self.weight(gamma, self._width)) if self._layer_scale else linear


def positions_of(checkpoint: Checkpoint, prefix: str, context: int, width: int) -> Weight:
    """Return the text's positions ``[context, W]``; Long-CLIP's two tables are joined."""
    positions = checkpoint.weight(f"{prefix}positional_embedding", context, width)
    second = f"{prefix}positional_embedding_res"
    if not checkpoint.has(second):
        return positions
    rest = checkpoint.weight(second, context, width)
    return Weight(
        (context, width),
        lambda: np.concatenate([positions.read()[:_LONG_CLIP_KEPT], rest.read()[_LONG_CLIP_KEPT:]]),
    )
