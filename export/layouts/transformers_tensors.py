"""The tensor names that transformers' SigLIP and CLIP share, and the settings of one half of config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from overflight.export.settings import read_settings
from overflight.export.tables import ignored_settings
from overflight.export.tower import (
    Activation,
    Attention,
    Block,
    Encoder,
    Linear,
    Mlp,
    Norm,
    Pool,
    ProbePool,
    TextTower,
    Weight,
)
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "quick_gelu": "quick-gelu",
}
# Position numbers, which older versions stored next to the weights.
_CONSTANTS = ("embeddings.position_ids",)


class TowerSettings(msgspec.Struct, frozen=True):
    """One half of config.json; a field that is left out has SigLIP's default, as in transformers."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6


class ImageSettings(TowerSettings, frozen=True):
    """SigLIP's vision_config."""

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    vision_use_head: bool = True
    num_patches: int | None = None


class TextSettings(TowerSettings, frozen=True):
    """SigLIP's text_config."""

    vocab_size: int = 32000
    max_position_embeddings: int = 64
    projection_size: int | None = None


class ClipImageSettings(TowerSettings, frozen=True):
    """CLIP's vision_config, with CLIP's defaults."""

    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


class ClipTextSettings(TowerSettings, frozen=True):
    """CLIP's text_config, with CLIP's defaults."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


Half = TypeVar("Half", bound=TowerSettings)


def read_half(checkpoint: Checkpoint, half: str, form: type[Half], *, doubled: bool = False) -> Half:
    """Read ``vision_config`` or ``text_config``.

    With ``doubled``, ``…_config_dict`` comes first where it is there: transformers' CLIPConfig takes every setting from
    it, its own defaults included.
    """
    config = checkpoint.settings()
    raw: Any = config.get(f"{half}_dict") if doubled else None
    if raw is None:
        raw = config.get(half)
    where = f"{checkpoint.file('config.json')}: {half}"
    return read_settings({} if raw is None else raw, form, where, ignored_settings("transformers"))


def check_image(checkpoint: Checkpoint, image: ImageSettings | ClipImageSettings) -> None:
    """Refuse pictures that are not RGB or have no patch. Raises UsageError."""
    if image.num_channels != 3 or image.patch_size < 1 or image.image_size < image.patch_size:
        raise UsageError(
            f"{checkpoint.source}: {image.num_channels} channels, {image.image_size} px in patches of "
            f"{image.patch_size}; expected RGB and at least one patch"
        )


def text_tower(
    checkpoint: Checkpoint,
    settings: TextSettings | ClipTextSettings,
    pool: Pool,
    projection: str,
    width: int,
    *,
    causal: bool,
) -> TextTower:
    """Describe the text half; ``projection`` names its last product."""
    reader = Reader(checkpoint, "text_model", settings)
    bias = f"{projection}.bias"
    head = Linear(
        checkpoint.weight(f"{projection}.weight", width, settings.hidden_size).transposed,
        checkpoint.weight(bias, width) if checkpoint.has(bias) else None,
    )
    return TextTower(
        tokens=reader.weight("embeddings.token_embedding.weight", settings.vocab_size, settings.hidden_size),
        causal=causal,
        encoder=reader.encoder(settings.max_position_embeddings, "final_layer_norm", pool, head),
    )


class Reader:
    """Finds the tensors of one tower, whose names the two families share."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, settings: TowerSettings) -> None:
        heads, layers = settings.num_attention_heads, settings.num_hidden_layers
        if heads < 1 or layers < 1 or settings.hidden_size < 1 or settings.hidden_size % heads:
            raise UsageError(
                f"{checkpoint.source}: {layers} layers of {heads} heads do not make a tower of width "
                f"{settings.hidden_size}"
            )
        if settings.hidden_act not in ACTIVATIONS:
            raise UsageError(
                f"{checkpoint.source}: hidden_act {settings.hidden_act!r}, expected one of " + ", ".join(ACTIVATIONS)
            )
        checkpoint.skip(*(f"{prefix}.{name}" for name in _CONSTANTS))
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._settings = settings

    def weight(self, name: str, *shape: int) -> Weight:
        """Return a tensor of this tower."""
        return self._checkpoint.weight(f"{self._prefix}.{name}", *shape)

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        """Return a product with its bias."""
        return Linear(self.weight(f"{name}.weight", outputs, inputs).transposed, self.weight(f"{name}.bias", outputs))

    def norm(self, name: str) -> Norm:
        """Return a layer normalisation."""
        width = self._settings.hidden_size
        return Norm(
            self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width), self._settings.layer_norm_eps
        )

    def encoder(self, length: int, norm: str, pool: Pool, projection: Linear | None) -> Encoder:
        """Describe what both towers share."""
        return Encoder(
            length=length,
            width=self._settings.hidden_size,
            positions=self.weight("embeddings.position_embedding.weight", length, self._settings.hidden_size),
            blocks=tuple(self._block(number) for number in range(self._settings.num_hidden_layers)),
            norm=self.norm(norm),
            pool=pool,
            projection=projection,
        )

    def patches(self, patch: int, *, bias: bool) -> Linear:
        """Return the patch convolution as a product over [row, column, channel], as frames keep their pixels."""
        width = self._settings.hidden_size
        kernel = self.weight("embeddings.patch_embedding.weight", width, 3, patch, patch)
        return Linear(patch_product(kernel), self.weight("embeddings.patch_embedding.bias", width) if bias else None)

    def probe_pool(self) -> ProbePool:
        """Return SigLIP's head, whose query, key and value are packed."""
        width, heads = self._settings.hidden_size, self._settings.num_attention_heads
        query, key, value = unpack(
            self.weight("head.attention.in_proj_weight", 3 * width, width),
            self.weight("head.attention.in_proj_bias", 3 * width),
        )
        probe = self.weight("head.probe", 1, 1, width)
        output = self.linear("head.attention.out_proj", width, width)
        return ProbePool(
            probe=Weight((width,), lambda: probe.read().reshape(width)),
            attention=Attention(query, key, value, output, heads),
            norm=self.norm("head.layernorm"),
            mlp=self._mlp("head.mlp"),
        )

    def _block(self, number: int) -> Block:
        name, width = f"encoder.layers.{number}", self._settings.hidden_size
        query, key, value, output = (
            self.linear(f"{name}.self_attn.{part}_proj", width, width) for part in ("q", "k", "v", "out")
        )
        return Block(
            norm1=self.norm(f"{name}.layer_norm1"),
            attention=Attention(query, key, value, output, self._settings.num_attention_heads),
            norm2=self.norm(f"{name}.layer_norm2"),
            mlp=self._mlp(f"{name}.mlp"),
        )

    def _mlp(self, name: str) -> Mlp:
        width, inner = self._settings.hidden_size, self._settings.intermediate_size
        return Mlp(
            self.linear(f"{name}.fc1", width, inner),
            self.linear(f"{name}.fc2", inner, width),
            ACTIVATIONS[self._settings.hidden_act],
        )


def patch_product(kernel: Weight) -> Weight:
    """Turn a convolution ``[W, 3, P, P]`` into a product ``[P · P · 3, W]``, the channel innermost."""
    width, channels, patch, _ = kernel.shape
    return Weight(
        (patch * patch * channels, width),
        lambda: np.ascontiguousarray(kernel.read().transpose(2, 3, 1, 0).reshape(patch * patch * channels, width)),
    )


def unpack(packed: Weight, bias: Weight | None) -> list[Linear]:
    """Split a packed product ``[parts · W, W]`` and its bias into products ``[W, W]``: query, key, value in order."""
    width = packed.shape[1]

    def part(index: int) -> Linear:
        rows = slice(index * width, (index + 1) * width)
        return Linear(
            Weight((width, width), lambda: np.ascontiguousarray(packed.read()[rows].T)),
            None if bias is None else Weight((width,), lambda: bias.read()[rows]),
        )

    return [part(index) for index in range(packed.shape[0] // width)]
