"""transformers' SigLIP and SigLIP 2 of fixed resolution: config.json and tensors to a description."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.layouts.transformers_tensors import (
    ImageSettings,
    Reader,
    TextSettings,
    check_image,
    read_half,
    text_tower,
)
from overflight.export.preprocessing import read_preprocessing
from overflight.export.settings import read_settings
from overflight.export.tables import ignored_settings
from overflight.export.tokenizer_files import identify
from overflight.export.tower import ImageTower, Model, PositionPool
from overflight.runtime.bundle import Tokenising
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint


class _Top(msgspec.Struct, frozen=True):
    """config.json of SigLIP, apart from its halves; nothing there changes what is computed."""


def describe_siglip(checkpoint: Checkpoint) -> Model:
    """Describe both towers. Raises UsageError for what cannot be exported."""
    read_settings(checkpoint.settings(), _Top, str(checkpoint.file("config.json")), ignored_settings("transformers"))
    image, text = read_siglip_halves(checkpoint)
    check_image(checkpoint, image)
    _check_fixed(checkpoint, image)
    projected = text.projection_size or text.hidden_size
    if projected != image.hidden_size:
        raise UsageError(
            f"{checkpoint.source}: texts become {projected} numbers, pictures {image.hidden_size}; not one space"
        )
    reader = Reader(checkpoint, "vision_model", image)
    resize, pixels = read_preprocessing(checkpoint, image.image_size)
    length = (image.image_size // image.patch_size) ** 2
    image_tower = ImageTower(
        side=image.image_size,
        patch=image.patch_size,
        pixels=pixels,
        patches=reader.patches(image.patch_size, bias=True),
        class_token=None,
        norm_before=None,
        encoder=reader.encoder(length, "post_layernorm", reader.probe_pool(), None),
    )
    kind = identify(checkpoint, ("siglip", "siglip2"))
    return Model(
        family="siglip2" if kind == "siglip2" else "siglip",
        image=image_tower,
        text=text_tower(checkpoint, text, PositionPool(-1), "text_model.head", projected, causal=False),
        embedding=projected,
        logit_scale=checkpoint.scalar("logit_scale"),
        logit_bias=checkpoint.scalar("logit_bias"),
        score="sigmoid",
        resize=resize,
        tokenising=Tokenising(kind, text.max_position_embeddings, text.vocab_size),
    )


def read_siglip_halves(checkpoint: Checkpoint) -> tuple[ImageSettings, TextSettings]:
    """Read both halves of config.json."""
    return read_half(checkpoint, "vision_config", ImageSettings), read_half(checkpoint, "text_config", TextSettings)


def _check_fixed(checkpoint: Checkpoint, image: ImageSettings) -> None:
    if image.num_patches is not None or len(checkpoint.shape("vision_model.embeddings.patch_embedding.weight")) != 4:
        raise UsageError(
            f"{checkpoint.source}: a NaFlex model, whose number of patches varies; an engine needs a fixed input, "
            "use the fixed-resolution checkpoint of the same model (…-patch16-256 and the like)"
        )
    if not image.vision_use_head:
        raise UsageError(
            f"{checkpoint.source}: vision_use_head is false; without its head the image tower has no embedding"
        )
