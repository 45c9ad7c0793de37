"""From an OpenCLIP ``.pt`` (RemoteCLIP and its kin) to a checkpoint in the form that every other one has."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.export.checkpoint import CONFIG, PREPROCESSING, SINGLE, TOKENIZERS, read_json
from overflight.runtime.errors import OverflightError, UsageError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPEN_CLIP = "open_clip_config.json"  # what OpenCLIP keeps beside its weights on the hub
_HEAD = 64  # numbers per head in every CLIP that OpenAI published
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
_RESAMPLE = {"bicubic": 3, "bilinear": 2}

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_SINGLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


class _Vision(msgspec.Struct, frozen=True):
    head_width: int = _HEAD


class _Text(msgspec.Struct, frozen=True):
    heads: int | None = None


class _Model(msgspec.Struct, frozen=True):
    vision_cfg: _Vision = _Vision()
    text_cfg: _Text = _Text()
    quick_gelu: bool = False


class _Preprocess(msgspec.Struct, frozen=True):
    mean: tuple[float, float, float] = _MEAN
    std: tuple[float, float, float] = _STD
    interpolation: str = "bicubic"


class _OpenClip(msgspec.Struct, frozen=True):
    model_cfg: _Model = _Model(quick_gelu=True)
    preprocess_cfg: _Preprocess = _Preprocess()


def convert(source: Path, directory: Path) -> None:
    """Write the CLIP checkpoint that ``source``, an OpenCLIP state dict, holds into ``directory``.

    ``open_clip_config.json`` beside it is heeded. Without one it is taken for a descendant of OpenAI's weights, as
    RemoteCLIP is: quick GELU, OpenAI's mean and std, bicubic. Raises MissingError without torch, UsageError for a file
    that holds anything but the weights of a ViT.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise missing_extra("torch", "torch") from error
    weights = _load(torch, source)
    beside = source.parent / OPEN_CLIP
    settings = read_json(beside, _OpenClip) if beside.is_file() else _OpenClip()
    config, preprocessing = _settings(source, weights, settings)
    tensors = {name: tensor.contiguous() for name, tensor in _renamed(weights)}
    try:
        save_file(tensors, directory / SINGLE)
    except (OSError, SafetensorError) as error:
        raise OverflightError(f"{directory.parent}: {error}; make room for a copy of the weights") from error
    (directory / CONFIG).write_text(json.dumps(config))
    (directory / PREPROCESSING[0]).write_text(json.dumps(preprocessing))
    for name in TOKENIZERS:
        if (source.parent / name).is_file():
            (directory / name).symlink_to((source.parent / name).resolve())


def _load(torch: Any, source: Path) -> dict[str, Any]:
    """Read the state dict, weights only: a ``.pt`` is a pickle, and nothing in it may run."""
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers a foreign file with half a dozen unrelated errors
        what = str(error).strip().splitlines()[0]
        raise UsageError(f"{source}: not a file of weights only ({what}); give an OpenCLIP state dict") from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    weights = {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
    for name in (*_SINGLE, *_PROJECTIONS, "transformer.resblocks.0.ln_1.weight"):
        if name not in weights:
            raise UsageError(
                f"{source}: no tensor {name!r}; only OpenCLIP's plain ViT models can be exported (no ResNet)"
            )
    return weights


def _renamed(weights: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for ours, theirs in _SINGLE.items():
        yield theirs, weights[ours]
    for ours, theirs in _PROJECTIONS.items():
        yield theirs, weights[ours].T
    ends = ("weight", "bias")
    for ours, theirs in _NORMS.items():
        yield from ((f"{theirs}.{end}", weights[f"{ours}.{end}"]) for end in ends)
    for prefix, tower in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for number in range(_depth(weights, prefix)):
            block, layer = f"{prefix}.resblocks.{number}", f"{tower}.encoder.layers.{number}"
            for ours, theirs in _BLOCK.items():
                yield from ((f"{layer}.{theirs}.{end}", weights[f"{block}.{ours}.{end}"]) for end in ends)
            for end in ends:
                parts = weights[f"{block}.attn.in_proj_{end}"].chunk(3)
                yield from (
                    (f"{layer}.self_attn.{part}_proj.{end}", tensor) for part, tensor in zip("qkv", parts, strict=True)
                )


def _settings(source: Path, weights: dict[str, Any], known: _OpenClip) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read off the tensors' shapes what config.json and preprocessor_config.json would say."""
    model, prepared = known.model_cfg, known.preprocess_cfg
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    vocabulary, deep = weights["token_embedding.weight"].shape
    across = math.isqrt(weights["visual.positional_embedding"].shape[0] - 1)
    if prepared.interpolation not in _RESAMPLE:
        raise UsageError(
            f"{source.parent / OPEN_CLIP}: interpolation {prepared.interpolation!r}, expected {' or '.join(_RESAMPLE)}"
        )
    side = across * patch
    activation = "quick_gelu" if model.quick_gelu else "gelu"
    config = {
        "model_type": "clip",
        "projection_dim": weights["visual.proj"].shape[1],
        "vision_config": {
            **_tower(weights, "visual.transformer", width, width // model.vision_cfg.head_width, activation),
            "image_size": side,
            "patch_size": patch,
        },
        "text_config": {
            **_tower(weights, "transformer", deep, model.text_cfg.heads or deep // _HEAD, activation),
            "vocab_size": vocabulary,
            "max_position_embeddings": weights["positional_embedding"].shape[0],
            "eos_token_id": 2,  # OpenCLIP pools the highest id, which is what 2 stands for
        },
    }
    preprocessing = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "resample": _RESAMPLE[prepared.interpolation],
        "image_mean": prepared.mean,
        "image_std": prepared.std,
    }
    return config, preprocessing


def _tower(weights: dict[str, Any], prefix: str, width: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": weights[f"{prefix}.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _depth(weights, prefix),
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def _depth(weights: dict[str, Any], prefix: str) -> int:
    start = f"{prefix}.resblocks."
    return 1 + max(int(name[len(start) :].split(".")[0]) for name in weights if name.startswith(start))
