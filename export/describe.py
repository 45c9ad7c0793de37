"""From a checkpoint to the description of its towers: which tensor is which, per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.preprocessing import read_preprocessing
from overflight.export.tower import (
    Activation,
    Attention,
    Block,
    Encoder,
    EndPool,
    ImageTower,
    Linear,
    Mlp,
    Model,
    Norm,
    PositionPool,
    ProbePool,
    TextTower,
    Weight,
)
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.runtime.bundle import Family

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "quick_gelu": "quick-gelu",
}
# CLIP configs from before transformers #24773 say 2 where they mean "the highest id in the text".
_END_IS_HIGHEST = 2


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


class ClipImageSettings(ImageSettings, frozen=True):
    """CLIP's vision_config, with CLIP's defaults."""

    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


class ClipTextSettings(TextSettings, frozen=True):
    """CLIP's text_config, with CLIP's defaults."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


class SiglipSettings(msgspec.Struct, frozen=True):
    """config.json of SigLIP and SigLIP 2."""

    vision_config: ImageSettings = ImageSettings()
    text_config: TextSettings = TextSettings()


class ClipSettings(msgspec.Struct, frozen=True):
    """config.json of CLIP."""

    vision_config: ClipImageSettings = ClipImageSettings()
    text_config: ClipTextSettings = ClipTextSettings()
    projection_dim: int = 512


class _Kind(msgspec.Struct, frozen=True):
    model_type: str


class _TokenizerKind(msgspec.Struct, frozen=True):
    tokenizer_class: str = ""


def describe(checkpoint: Checkpoint) -> Model:
    """Describe both towers of a checkpoint. Raises UsageError for a model that is none of the families."""
    match checkpoint.settings(_Kind).model_type:
        case "siglip" | "siglip2":
            return _describe_siglip(checkpoint)
        case "clip":
            return _describe_clip(checkpoint)
        case other:
            raise UsageError(
                f"{checkpoint.directory}: model_type {other!r}, expected siglip, siglip2 or clip; "
                "only these families can be exported"
            )


def _describe_siglip(checkpoint: Checkpoint) -> Model:
    settings = checkpoint.settings(SiglipSettings)
    image, text = settings.vision_config, settings.text_config
    _check_image(checkpoint, image)
    if image.num_patches is not None or len(checkpoint.shape("vision_model.embeddings.patch_embedding.weight")) != 4:
        raise UsageError(
            f"{checkpoint.directory}: a NaFlex model, whose number of patches varies; an engine needs a fixed input, "
            "use the fixed-resolution checkpoint of the same model (…-patch16-256 and the like)"
        )
    if not image.vision_use_head:
        raise UsageError(f"{checkpoint.directory}: vision_use_head is false; without its head the tower embeds nothing")
    reader = _Reader(checkpoint, "vision_model", image)
    resize, pixels = read_preprocessing(checkpoint, image.image_size)
    projected = text.projection_size or text.hidden_size
    if projected != image.hidden_size:
        raise UsageError(
            f"{checkpoint.directory}: texts become {projected} numbers, pictures {image.hidden_size}; not one space"
        )
    image_tower = ImageTower(
        side=image.image_size,
        patch=image.patch_size,
        pixels=pixels,
        patches=reader.patches(image, bias=True),
        class_token=None,
        norm_before=None,
        encoder=reader.encoder(
            (image.image_size // image.patch_size) ** 2, "post_layernorm", reader.probe_pool(), None
        ),
    )
    return Model(
        family=_siglip_generation(checkpoint),
        image=image_tower,
        text=_text_tower(checkpoint, text, PositionPool(-1), "text_model.head", projected, causal=False),
        embedding=projected,
        logit_scale=checkpoint.scalar("logit_scale"),
        logit_bias=checkpoint.scalar("logit_bias"),
        resize=resize,
    )


def _describe_clip(checkpoint: Checkpoint) -> Model:
    settings = checkpoint.settings(ClipSettings)
    image, text, width = settings.vision_config, settings.text_config, settings.projection_dim
    _check_image(checkpoint, image)
    reader = _Reader(checkpoint, "vision_model", image)
    resize, pixels = read_preprocessing(checkpoint, image.image_size)
    projection = Linear(checkpoint.weight("visual_projection.weight", width, image.hidden_size).transposed)
    image_tower = ImageTower(
        side=image.image_size,
        patch=image.patch_size,
        pixels=pixels,
        patches=reader.patches(image, bias=False),
        class_token=checkpoint.weight("vision_model.embeddings.class_embedding", image.hidden_size),
        norm_before=reader.norm("pre_layrnorm"),
        encoder=reader.encoder(
            (image.image_size // image.patch_size) ** 2 + 1, "post_layernorm", PositionPool(0), projection
        ),
    )
    end = EndPool(None if text.eos_token_id == _END_IS_HIGHEST else text.eos_token_id)
    return Model(
        family="clip",
        image=image_tower,
        text=_text_tower(checkpoint, text, end, "text_projection", width, causal=True),
        embedding=width,
        logit_scale=checkpoint.scalar("logit_scale"),
        logit_bias=0.0,
        resize=resize,
    )


def _text_tower(
    checkpoint: Checkpoint,
    settings: TextSettings,
    pool: PositionPool | EndPool,
    projection: str,
    width: int,
    *,
    causal: bool,
) -> TextTower:
    reader = _Reader(checkpoint, "text_model", settings)
    bias = f"{projection}.bias"
    head = Linear(
        checkpoint.weight(f"{projection}.weight", width, settings.hidden_size).transposed,
        checkpoint.weight(bias, width) if checkpoint.holds(bias) else None,
    )
    return TextTower(
        tokens=reader.weight("embeddings.token_embedding.weight", settings.vocab_size, settings.hidden_size),
        causal=causal,
        encoder=reader.encoder(settings.max_position_embeddings, "final_layer_norm", pool, head),
    )


class _Reader:
    """Finds the tensors of one tower, whose names the two families share."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, settings: TowerSettings) -> None:
        heads, layers = settings.num_attention_heads, settings.num_hidden_layers
        if heads < 1 or layers < 1 or settings.hidden_size % heads:
            raise UsageError(
                f"{checkpoint.directory}: {layers} layers of {heads} heads do not make a tower of width "
                f"{settings.hidden_size}"
            )
        if settings.hidden_act not in _ACTIVATIONS:
            raise UsageError(
                f"{checkpoint.directory}: hidden_act {settings.hidden_act!r}, expected one of "
                + ", ".join(_ACTIVATIONS)
            )
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._settings = settings

    def weight(self, name: str, *shape: int) -> Weight:
        return self._checkpoint.weight(f"{self._prefix}.{name}", *shape)

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        return Linear(self.weight(f"{name}.weight", outputs, inputs).transposed, self.weight(f"{name}.bias", outputs))

    def norm(self, name: str) -> Norm:
        width = self._settings.hidden_size
        return Norm(
            self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width), self._settings.layer_norm_eps
        )

    def mlp(self, name: str) -> Mlp:
        width, inner = self._settings.hidden_size, self._settings.intermediate_size
        return Mlp(
            self.linear(f"{name}.fc1", width, inner),
            self.linear(f"{name}.fc2", inner, width),
            _ACTIVATIONS[self._settings.hidden_act],
        )

    def block(self, number: int) -> Block:
        name, width = f"encoder.layers.{number}", self._settings.hidden_size
        query, key, value, output = (
            self.linear(f"{name}.self_attn.{part}_proj", width, width) for part in ("q", "k", "v", "out")
        )
        return Block(
            norm1=self.norm(f"{name}.layer_norm1"),
            attention=Attention(query, key, value, output, self._settings.num_attention_heads),
            norm2=self.norm(f"{name}.layer_norm2"),
            mlp=self.mlp(f"{name}.mlp"),
        )

    def encoder(
        self, length: int, norm: str, pool: ProbePool | PositionPool | EndPool, projection: Linear | None
    ) -> Encoder:
        return Encoder(
            length=length,
            width=self._settings.hidden_size,
            positions=self.weight("embeddings.position_embedding.weight", length, self._settings.hidden_size),
            blocks=tuple(self.block(number) for number in range(self._settings.num_hidden_layers)),
            norm=self.norm(norm),
            pool=pool,
            projection=projection,
        )

    def patches(self, settings: ImageSettings, *, bias: bool) -> Linear:
        """Return the patch convolution as a product over [row, column, channel], as frames keep their pixels."""
        width, patch = settings.hidden_size, settings.patch_size
        kernel = self.weight("embeddings.patch_embedding.weight", width, 3, patch, patch)
        product = Weight(
            (patch * patch * 3, width),
            lambda: np.ascontiguousarray(kernel.read().transpose(2, 3, 1, 0).reshape(patch * patch * 3, width)),
        )
        return Linear(product, self.weight("embeddings.patch_embedding.bias", width) if bias else None)

    def probe_pool(self) -> ProbePool:
        width = self._settings.hidden_size
        packed = self.weight("head.attention.in_proj_weight", 3 * width, width)
        packed_bias = self.weight("head.attention.in_proj_bias", 3 * width)

        def part(index: int) -> Linear:
            rows = slice(index * width, (index + 1) * width)
            return Linear(
                Weight((width, width), lambda: np.ascontiguousarray(packed.read()[rows].T)),
                Weight((width,), lambda: packed_bias.read()[rows]),
            )

        probe = self.weight("head.probe", 1, 1, width)
        return ProbePool(
            probe=Weight((width,), lambda: probe.read().reshape(width)),
            attention=Attention(
                part(0),
                part(1),
                part(2),
                self.linear("head.attention.out_proj", width, width),
                self._settings.num_attention_heads,
            ),
            norm=self.norm("head.layernorm"),
            mlp=self.mlp("head.mlp"),
        )


def _check_image(checkpoint: Checkpoint, image: ImageSettings) -> None:
    if image.num_channels != 3 or image.image_size < image.patch_size or image.patch_size < 1:
        raise UsageError(
            f"{checkpoint.directory}: {image.num_channels} channels, {image.image_size} px in patches of "
            f"{image.patch_size}; expected RGB and at least one patch"
        )


def _siglip_generation(checkpoint: Checkpoint) -> Family:
    """SigLIP 2 kept SigLIP's model class and says so only in its tokenizer."""
    path = checkpoint.directory / "tokenizer_config.json"
    if (checkpoint.directory / "spiece.model").is_file() or not path.is_file():
        return "siglip"
    kind = checkpoint.settings(_TokenizerKind, path.name).tokenizer_class
    return "siglip2" if kind.startswith(("Gemma", "Siglip2")) else "siglip"
