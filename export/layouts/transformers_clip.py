"""transformers' CLIP: config.json and tensors to a description."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.layouts.transformers_tensors import (
    ClipImageSettings,
    ClipTextSettings,
    Reader,
    check_image,
    read_half,
    text_tower,
)
from overflight.export.preprocessing import read_preprocessing
from overflight.export.settings import read_settings
from overflight.export.tables import ignored_settings
from overflight.export.tokenizer_files import identify
from overflight.export.tower import EndPool, ImageTower, Linear, Model, PositionPool
from overflight.runtime.bundle import Tokenising
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint

# CLIP configs from before transformers #24773 say 2 where they mean "the highest id in the text".
END_IS_HIGHEST = 2


class _Top(msgspec.Struct, frozen=True):
    """config.json of CLIP, apart from its halves."""

    projection_dim: int = 512


def describe_clip(checkpoint: Checkpoint) -> Model:
    """Describe both towers. Raises UsageError for what cannot be exported."""
    width = read_settings(
        checkpoint.settings(), _Top, str(checkpoint.file("config.json")), ignored_settings("transformers")
    ).projection_dim
    image, text = read_clip_halves(checkpoint)
    check_image(checkpoint, image)
    if not 0 <= text.eos_token_id < text.vocab_size:
        raise UsageError(
            f"{checkpoint.source}: eos_token_id is {text.eos_token_id} (49407 where it is left out), but vocab_size is "
            f"{text.vocab_size}; write the tokenizer's end id into text_config of {checkpoint.file('config.json').name}"
        )
    reader = Reader(checkpoint, "vision_model", image)
    resize, pixels = read_preprocessing(checkpoint, image.image_size)
    projection = Linear(checkpoint.weight("visual_projection.weight", width, image.hidden_size).transposed)
    length = (image.image_size // image.patch_size) ** 2 + 1
    image_tower = ImageTower(
        side=image.image_size,
        patch=image.patch_size,
        pixels=pixels,
        patches=reader.patches(image.patch_size, bias=False),
        class_token=checkpoint.weight("vision_model.embeddings.class_embedding", image.hidden_size),
        norm_before=reader.norm("pre_layrnorm"),
        encoder=reader.encoder(length, "post_layernorm", PositionPool(0), projection),
    )
    end = EndPool(None if text.eos_token_id == END_IS_HIGHEST else text.eos_token_id)
    return Model(
        family="clip",
        image=image_tower,
        text=text_tower(checkpoint, text, end, "text_projection", width, causal=True),
        embedding=width,
        logit_scale=checkpoint.scalar("logit_scale"),
        logit_bias=0.0,
        score="softmax",
        resize=resize,
        tokenising=Tokenising(identify(checkpoint, ("clip",)), text.max_position_embeddings, text.vocab_size),
    )


def read_clip_halves(checkpoint: Checkpoint) -> tuple[ClipImageSettings, ClipTextSettings]:
    """Read both halves of config.json, each from ``…_config_dict`` where that is there."""
    return (
        read_half(checkpoint, "vision_config", ClipImageSettings, doubled=True),
        read_half(checkpoint, "text_config", ClipTextSettings, doubled=True),
    )
