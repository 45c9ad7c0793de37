"""SigLIP's image tower as timm names it, inside OpenCLIP's layout."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overflight.export.layouts.transformers_tensors import patch_product, unpack
from overflight.export.tower import (
    Activation,
    Attention,
    Block,
    Encoder,
    ImageTower,
    Linear,
    Mlp,
    Norm,
    Pixels,
    ProbePool,
    Weight,
)
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.export.layouts.open_clip_settings import OpenClipSettings

_NAME = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)")
# Width, layers, heads, MLP of each size. https://github.com/huggingface/pytorch-image-models, vision_transformer.py
_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
# The towers whose activation timm gives as tanh; it takes the exact GELU for the others, and so does open_clip.
_TANH = {("base", 32, 256), ("large", 16, 512), ("so400m", 16, 256), ("so400m", 16, 384), ("so400m", 16, 512)}
_TANH |= {("giantopt", 16, 256), ("giantopt", 16, 384)}
_EPSILON = 1e-6
_REASONS = {
    "vit_pe_": "PE-Core rotates its positions (RoPE)",
    "fastvit": "MobileCLIP's FastViT is a convolutional network",
    "vit_base_mci": "MobileCLIP-B begins with a convolutional stem",
    "naflexvit": "a NaFlex model has no fixed input; use the fixed-resolution checkpoint",
    "eva": "EVA rotates its positions (RoPE)",
    "vitamin": "ViTamin begins with a convolutional stem",
    "convnext": "ConvNeXt is a convolutional network",
}


def describe_timm(checkpoint: Checkpoint, known: OpenClipSettings, pixels: Pixels) -> ImageTower:
    """Describe the image half. Raises UsageError for any other model of timm, and says why."""
    settings, where = known.vision, known.where
    named = settings.timm_model_name or ""
    match = _NAME.fullmatch(named.partition(".")[0])
    plain = settings.timm_pool == "map" and settings.timm_proj == "none" and not settings.timm_proj_bias
    if match is None or not plain:
        reason = next(
            (why for start, why in _REASONS.items() if named.startswith(start)), "it is not a plain SigLIP ViT"
        )
        raise UsageError(
            f"{where}: the image tower is timm's {named} (pool {settings.timm_pool}, projection {settings.timm_proj}), "
            f"which cannot be exported: {reason}"
        )
    size, patch, side = match[1], int(match[2]), int(match[3])
    width = _SIZES[size][0]
    if settings.image_size not in (side, (side, side)) or known.model.embed_dim != width:
        raise UsageError(
            f"{where}: {named} takes {side} px and gives {width} numbers, but image_size is {settings.image_size} and "
            f"embed_dim {known.model.embed_dim}; the settings are of two models"
        )
    activation: Activation = "gelu-tanh" if (size, patch, side) in _TANH else "gelu"
    return _Trunk(checkpoint, *_SIZES[size], activation).tower(side, patch, pixels)


class _Trunk:
    """Finds the tensors below ``visual.trunk``."""

    def __init__(
        self, checkpoint: Checkpoint, width: int, layers: int, heads: int, inner: int, activation: Activation
    ) -> None:
        self._checkpoint, self._activation = checkpoint, activation
        self._width, self._layers, self._heads, self._inner = width, layers, heads, inner

    def tower(self, side: int, patch: int, pixels: Pixels) -> ImageTower:
        width, length = self._width, (side // patch) ** 2
        positions = self._weight("pos_embed", 1, length, width)
        encoder = Encoder(
            length=length,
            width=width,
            positions=Weight((length, width), lambda: positions.read().reshape(length, width)),
            blocks=tuple(self._block(number) for number in range(self._layers)),
            norm=self._norm("norm"),
            pool=self._pool(),
            projection=None,
        )
        kernel = self._weight("patch_embed.proj.weight", width, 3, patch, patch)
        patches = Linear(patch_product(kernel), self._weight("patch_embed.proj.bias", width))
        return ImageTower(side, patch, pixels, patches, None, None, encoder)

    def _weight(self, name: str, *shape: int) -> Weight:
        return self._checkpoint.weight(f"visual.trunk.{name}", *shape)

    def _linear(self, name: str, inputs: int, outputs: int) -> Linear:
        weight = self._weight(f"{name}.weight", outputs, inputs).transposed
        return Linear(weight, self._weight(f"{name}.bias", outputs))

    def _norm(self, name: str) -> Norm:
        return Norm(self._weight(f"{name}.weight", self._width), self._weight(f"{name}.bias", self._width), _EPSILON)

    def _mlp(self, name: str) -> Mlp:
        up, down = (
            self._linear(f"{name}.fc1", self._width, self._inner),
            self._linear(f"{name}.fc2", self._inner, self._width),
        )
        return Mlp(up, down, self._activation)

    def _packed(self, name: str, parts: int) -> list[Linear]:
        width = self._width
        return unpack(self._weight(f"{name}.weight", parts * width, width), self._weight(f"{name}.bias", parts * width))

    def _block(self, number: int) -> Block:
        name = f"blocks.{number}"
        query, key, value = self._packed(f"{name}.attn.qkv", 3)
        return Block(
            norm1=self._norm(f"{name}.norm1"),
            attention=Attention(
                query, key, value, self._linear(f"{name}.attn.proj", self._width, self._width), self._heads
            ),
            norm2=self._norm(f"{name}.norm2"),
            mlp=self._mlp(f"{name}.mlp"),
        )

    def _pool(self) -> ProbePool:
        name, width = "attn_pool", self._width
        key, value = self._packed(f"{name}.kv", 2)
        query, output = (self._linear(f"{name}.{part}", width, width) for part in ("q", "proj"))
        latent = self._weight(f"{name}.latent", 1, 1, width)
        return ProbePool(
            probe=Weight((width,), lambda: latent.read().reshape(width)),
            attention=Attention(query, key, value, output, self._heads),
            norm=self._norm(f"{name}.norm"),
            mlp=self._mlp(f"{name}.mlp"),
        )
