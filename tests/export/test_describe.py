"""Descriptions: families are told apart, and what cannot be exported is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.tower import EndPool, PositionPool, ProbePool
from overflight.runtime.errors import MissingError, UsageError

Tiny = Callable[..., Path]


def change(directory: Path, file: str, **changes: Any) -> Checkpoint:
    """Change settings of a checkpoint: ``part__key=value`` reaches into a part."""
    settings = json.loads((directory / file).read_text())
    for path, value in changes.items():
        *parts, key = path.split("__")
        inner = settings
        for part in parts:
            inner = inner[part]
        inner[key] = value
    (directory / file).write_text(json.dumps(settings))
    return Checkpoint.open(directory)


def test_siglip_pools_with_a_probe_and_the_last_token(tiny: Tiny) -> None:
    """SigLIP: attention pooling for pictures, position -1 for texts, no mask, sigmoid's bias."""
    model = describe(Checkpoint.open(tiny("siglip")))
    assert isinstance(model.image.encoder.pool, ProbePool)
    assert model.text.encoder.pool == PositionPool(-1)
    assert (model.family, model.text.causal, model.image.class_token) == ("siglip", False, None)
    assert model.logit_bias != 0
    assert model.resize.fit == "squash"


@pytest.mark.parametrize(("family", "end"), [("clip", None), ("clip-gelu", 60)])
def test_clip_pools_the_class_token_and_the_end(tiny: Tiny, family: str, end: int | None) -> None:
    """CLIP: class token, causal texts, the end by highest id where config says 2, by its id otherwise."""
    model = describe(Checkpoint.open(tiny(family)))
    assert model.image.encoder.pool == PositionPool(0)
    assert model.text.encoder.pool == EndPool(end)
    assert (model.family, model.text.causal, model.logit_bias) == ("clip", True, 0.0)
    assert model.resize.fit == "crop"


def test_the_tokenizer_tells_siglip_2_from_siglip(tiny: Tiny) -> None:
    """Both generations have one model class; Gemma's tokenizer is the second's."""
    directory = tiny("siglip2")
    assert describe(Checkpoint.open(directory)).family == "siglip"
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizerFast"}')
    assert describe(Checkpoint.open(directory)).family == "siglip2"
    (directory / "spiece.model").write_bytes(b"")
    assert describe(Checkpoint.open(directory)).family == "siglip"


def test_a_siglip2_config_with_fixed_patches_is_taken(tiny: Tiny) -> None:
    """model_type siglip2 alone refuses nothing."""
    assert describe(change(tiny("siglip2"), "config.json", model_type="siglip2")).embedding == 16


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("siglip2", {"vision_config__num_patches": 256}, "NaFlex"),
        ("siglip", {"model_type": "blip"}, "model_type 'blip', expected siglip, siglip2 or clip"),
        ("siglip", {"vision_config__vision_use_head": False}, "vision_use_head"),
        ("siglip", {"text_config__projection_size": 24}, "not one space"),
        ("siglip", {"vision_config__hidden_act": "relu"}, "hidden_act 'relu', expected one of gelu"),
        ("siglip", {"vision_config__num_attention_heads": 3}, "2 layers of 3 heads do not make a tower of width 16"),
        ("siglip", {"vision_config__num_channels": 4}, "4 channels"),
        ("siglip", {"vision_config__hidden_size": "wide"}, r"Expected `int`, got `str` - at `\$.vision_config"),
        ("clip", {"vision_config__num_hidden_layers": 3}, "layers.2"),
        ("clip", {"projection_dim": 21}, "implies"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    tiny: Tiny, family: str, changes: dict[str, Any], message: str
) -> None:
    """The error says what was got and what was expected, on one line."""
    with pytest.raises(UsageError, match=message) as caught:
        describe(change(tiny(family), "config.json", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("siglip", {"size": {"height": 32, "width": 32}}, "takes 30 x 30 pixels"),
        ("siglip", {"size": {"height": 30, "width": 31}}, "takes 30 x 30 pixels"),
        ("siglip", {"size": {"shortest_edge": 30}}, "keeps the picture's shape"),
        ("siglip", {"resample": 0}, r"resample 0 .* expected one of 1 \(lanczos\)"),
        ("siglip", {"image_std": [0.5, 0.5, 0]}, "the second positive"),
        ("siglip", {"image_mean": [0.5]}, "preprocessor settings"),
        ("clip", {"size": {"shortest_edge": 28}}, "takes 24 x 24 pixels"),
    ],
)
def test_preprocessing_that_cannot_be_kept_is_refused(
    tiny: Tiny, family: str, changes: dict[str, Any], message: str
) -> None:
    """A tower is never fed what it was not trained on."""
    with pytest.raises(UsageError, match=message):
        describe(change(tiny(family), "preprocessor_config.json", **changes))


def test_pixels_are_as_the_preprocessor_says(tiny: Tiny) -> None:
    """Old CLIP configs give sizes as plain numbers; normalising and rescaling can be off."""
    model = describe(change(tiny("clip"), "preprocessor_config.json", size=24, crop_size=24, do_rescale=False))
    assert (model.resize.side, model.resize.fit, model.resize.filter) == (24, "crop", "bicubic")
    assert model.image.pixels.rescale == 1.0
    plain = describe(change(tiny("clip"), "preprocessor_config.json", do_normalize=False)).image.pixels
    assert (plain.mean, plain.std) == ((0, 0, 0), (1, 1, 1))


def test_preprocessing_may_lie_in_the_processors_file(tiny: Tiny) -> None:
    """transformers 5 keeps it under image_processor in processor_config.json."""
    directory = tiny("siglip")
    prepared = (directory / "preprocessor_config.json").read_text()
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(MissingError, match="resize, mean and std are unknown"):
        describe(Checkpoint.open(directory))
    (directory / "processor_config.json").write_text(f'{{"image_processor": {prepared}}}')
    assert describe(Checkpoint.open(directory)).resize.side == 30
