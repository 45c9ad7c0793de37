"""Descriptions: families are recognised, and what cannot be exported is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.tower import EndPool, ImageTower, PositionPool, ProbePool
from overflight.runtime.bundle import Resize
from overflight.runtime.errors import MissingError, UsageError

Tiny = Callable[..., Path]
Put = Callable[[Path, str], None]


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
    assert isinstance(model.image, ImageTower)
    assert isinstance(model.image.encoder.pool, ProbePool)
    assert model.text.encoder.pool == PositionPool(-1)
    assert (model.family, model.text.causal, model.image.class_token) == ("siglip", False, None)
    assert model.logit_bias != 0
    assert model.resize.fit == "squash"


@pytest.mark.parametrize(("family", "end"), [("clip", None), ("clip-gelu", 60)])
def test_clip_pools_the_class_token_and_the_end(tiny: Tiny, family: str, end: int | None) -> None:
    """CLIP: class token, causal texts, the end by highest id where config says 2, by its id otherwise."""
    model = describe(Checkpoint.open(tiny(family)))
    assert isinstance(model.image, ImageTower)
    assert model.image.encoder.pool == PositionPool(0)
    assert model.text.encoder.pool == EndPool(end)
    assert (model.family, model.text.causal, model.logit_bias) == ("clip", True, 0.0)
    assert model.resize.fit == "crop"


def test_the_tokenizer_tells_siglip_2_from_siglip(tiny: Tiny, put_tokenizer: Put) -> None:
    """Both generations have one model class; what the tokenizer does to a text decides, whatever it is called."""
    directory = tiny("siglip2")
    assert describe(Checkpoint.open(directory)).family == "siglip"
    put_tokenizer(directory, "siglip2")
    for named in ("GemmaTokenizerFast", "Siglip2Tokenizer", "TokenizersBackend", "SiglipTokenizer"):
        (directory / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": named, "padding_side": "right"})
        )
        assert describe(Checkpoint.open(directory)).family == "siglip2"


def test_a_tokenizer_of_another_family_is_refused(tiny: Tiny, put_tokenizer: Put) -> None:
    """CLIP's tokenizer next to SigLIP's towers, and the other way round."""
    for family, other in (("siglip", "clip"), ("clip", "siglip")):
        directory = tiny(family)
        put_tokenizer(directory, other)
        with pytest.raises(UsageError, match="the tokenizer belongs to another model"):
            describe(Checkpoint.open(directory))


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
        ("siglip", {"vision_config__hidden_size": "wide"}, r"vision_config: Expected `int`, got `str`"),
        ("clip", {"vision_config__num_hidden_layers": 3}, "layers.2"),
        ("clip", {"projection_dim": 21}, "imply"),
        ("clip", {"text_config__eos_token_id": 61}, "eos_token_id is 61 .* but vocab_size is 61"),
        ("clip", {"text_config__eos_token_id": [49407, 2]}, "Expected `int`, got `array`"),
        ("clip", {"text_config__use_rope": True}, "text_config: use_rope: not a setting that an export knows"),
        ("siglip", {"quantization_config": {}}, "quantization_config: not a setting that an export knows"),
        ("clip", {"vision_config__pruned_heads": {"0": [1]}}, "pruned_heads is .* cannot be exported"),
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
        ("siglip", {"image_std": [0.5, 0.5, 0]}, "image_std .* expected positive numbers"),
        ("siglip", {"image_mean": [0.5]}, "preprocessor_config.json: Expected `array` of length 3"),
        ("clip", {"size": {"shortest_edge": 20}}, "takes 24 x 24 pixels"),
        ("clip", {"crop_size": {"height": 20, "width": 20}}, "takes 24 x 24 pixels"),
        ("clip", {"do_center_crop": False}, "keeps the picture's shape"),
        ("clip", {"do_resize": False}, "do_resize false"),
        ("siglip", {"do_pad": True}, "do_pad true"),
        ("siglip", {"image_processor_type": "Siglip2ImageProcessor"}, "prepared by Siglip2ImageProcessor"),
        ("siglip", {"crop_pct": 0.9}, "crop_pct: not a setting that an export knows"),
    ],
)
def test_preprocessing_that_cannot_be_kept_is_refused(
    tiny: Tiny, family: str, changes: dict[str, Any], message: str
) -> None:
    """A tower is never fed what it was not trained on."""
    with pytest.raises(UsageError, match=message):
        describe(change(tiny(family), "preprocessor_config.json", **changes))


def test_omitted_settings_have_the_defaults_of_their_class(tiny: Tiny) -> None:
    """CLIPImageProcessor crops unless configured not to, whatever the file leaves out; a larger edge is kept."""
    directory = tiny("clip")
    path = directory / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    del settings["do_center_crop"], settings["resample"]
    path.write_text(json.dumps({**settings, "size": {"shortest_edge": 28}}))
    assert describe(Checkpoint.open(directory)).resize == Resize(24, "bicubic", "crop", edge=28)


def test_config_dicts_come_first(tiny: Tiny) -> None:
    """text_config_dict replaces text_config, its omitted keys with CLIP's own defaults, as transformers reads it."""
    directory = tiny("clip")
    config = json.loads((directory / "config.json").read_text())
    config["text_config_dict"], config["vision_config_dict"] = config["text_config"], None
    config["text_config"] = {"hidden_size": 999}
    (directory / "config.json").write_text(json.dumps(config))
    assert describe(Checkpoint.open(directory)).text.encoder.width == 24


def test_a_tensor_that_nothing_reads_is_named(tiny: Tiny) -> None:
    """LayerScale in a transformers checkpoint, or a bias where none belongs, changes the model: it is refused."""
    for name, said in (
        ("vision_model.encoder.layers.0.layer_scale", "1 of .* tensors belong to no part of the model"),
        ("vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", "contains LoRA weights"),
    ):
        directory = tiny("clip")
        tensors = load_file(directory / "model.safetensors")
        save_file({**tensors, name: np.zeros(16, np.float32)}, directory / "model.safetensors")
        with pytest.raises(UsageError, match=said):
            describe(Checkpoint.open(directory))


def test_position_numbers_next_to_the_weights_do_not_matter(tiny: Tiny) -> None:
    """Older checkpoints store embeddings.position_ids."""
    directory = tiny("clip")
    tensors = load_file(directory / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = np.arange(12)[None]
    save_file(tensors, directory / "model.safetensors")
    assert describe(Checkpoint.open(directory)).family == "clip"


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
