"""The description of a tower: SigLIP, SigLIP 2 and CLIP differ in this data, not in code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Family, Resize, Tokenising

Activation = Literal["gelu", "gelu-tanh", "quick-gelu"]


@dataclass(frozen=True)
class Weight:
    """A float32 array that is read, or computed from others, only when it is needed; it is never kept."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.float32]]

    @property
    def transposed(self) -> Weight:
        """Return the matrix with its axes swapped: torch keeps [out, in], a product wants [in, out]."""
        return Weight(self.shape[::-1], lambda: np.ascontiguousarray(self.read().T))


@dataclass(frozen=True)
class Linear:
    """y = x · weight + bias, ``weight`` ``[K, N]``, ``bias`` ``[N]``."""

    weight: Weight
    bias: Weight | None = None

    def scaled(self, gamma: Weight) -> Linear:
        """Multiply the outputs by ``gamma`` ``[N]``: LayerScale (Touvron et al., 2021), folded into the product."""
        weight, bias = self.weight, self.bias
        return Linear(
            Weight(weight.shape, lambda: weight.read() * gamma.read()),
            None if bias is None else Weight(bias.shape, lambda: bias.read() * gamma.read()),
        )


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis."""

    scale: Weight
    shift: Weight
    epsilon: float


@dataclass(frozen=True)
class Attention:
    """Multi-head attention; every product is ``[W, W]``."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int


@dataclass(frozen=True)
class Mlp:
    """Two products around an activation: ``up`` ``[W, M]``, ``down`` ``[M, W]``."""

    up: Linear
    down: Linear
    activation: Activation


@dataclass(frozen=True)
class Block:
    """One pre-norm transformer layer."""

    norm1: Norm
    attention: Attention
    norm2: Norm
    mlp: Mlp


@dataclass(frozen=True)
class ProbePool:
    """SigLIP's head: a learned probe ``[W]`` attends to every patch, then norm and MLP (Zhai et al., 2022)."""

    probe: Weight
    attention: Attention
    norm: Norm
    mlp: Mlp


@dataclass(frozen=True)
class PositionPool:
    """The state at one position is the answer: 0 is CLIP's class token, -1 is SigLIP's last text token."""

    position: int


@dataclass(frozen=True)
class EndPool:
    """CLIP's text: the state at the first ``end`` token; at the highest id where ``end`` is None."""

    end: int | None


@dataclass(frozen=True)
class MeanPool:
    """The mean of the states from ``start`` on (1 leaves out the class token).

    The encoder's norm is applied to the mean where ``norm_after`` is set, else to the states.
    """

    start: int
    norm_after: bool


Pool = ProbePool | PositionPool | EndPool | MeanPool


@dataclass(frozen=True)
class Encoder:
    """What both towers share: blocks over ``length`` states of ``width`` numbers, pooled and projected.

    ``positions`` is ``[length, width]``; ``norm`` comes after the blocks, ``projection`` after the pooling.
    """

    length: int
    width: int
    positions: Weight
    blocks: tuple[Block, ...]
    norm: Norm
    pool: Pool
    projection: Linear | None


@dataclass(frozen=True)
class Pixels:
    """How pixel values become the numbers the tower was trained on: (value · ``rescale`` - ``mean``) / ``std``."""

    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ImageTower:
    """The image half: square frames of ``side`` pixels cut into ``patch`` x ``patch`` pieces.

    ``patches`` is the patch product, its weight ``[patch · patch · 3, W]`` with the channel innermost;
    ``class_token`` ``[W]`` goes before the patches; ``norm_before`` is CLIP's, ahead of the blocks.
    """

    side: int
    patch: int
    pixels: Pixels
    patches: Linear
    class_token: Weight | None
    norm_before: Norm | None
    encoder: Encoder


@dataclass(frozen=True)
class Convolution:
    """A convolution ``[outputs, inputs, K, K]`` without padding for K = 1, with padding 1 for K = 3."""

    weight: Weight
    bias: Weight
    stride: int = 1


@dataclass(frozen=True)
class Bottleneck:
    """Three convolutions and a shortcut; ``stride`` > 1 averages before the third and before the shortcut's own."""

    first: Convolution
    second: Convolution
    third: Convolution
    shortcut: Convolution | None
    stride: int


@dataclass(frozen=True)
class ResNetTower:
    """CLIP's ModifiedResNet (Radford et al., 2021): three stem convolutions, four stages, attention pooling.

    ``positions`` is ``[1 + cells, W]``; ``projection`` is the attention's output product, ``[W, D]``.
    """

    side: int
    pixels: Pixels
    stem: tuple[Convolution, Convolution, Convolution]
    blocks: tuple[Bottleneck, ...]
    positions: Weight
    attention: Attention
    width: int


@dataclass(frozen=True)
class TextTower:
    """The text half: ``tokens`` ``[V, W]`` is the table of token embeddings; CLIP's attention is ``causal``."""

    tokens: Weight
    causal: bool
    encoder: Encoder

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return self.tokens.shape[0]


@dataclass(frozen=True)
class Model:
    """Both towers and what turns their cosine into a score. ``embedding`` is the length D of an embedding."""

    family: Family
    image: ImageTower | ResNetTower
    text: TextTower
    embedding: int
    logit_scale: float
    logit_bias: float
    score: Literal["sigmoid", "softmax"]
    resize: Resize
    tokenising: Tokenising
