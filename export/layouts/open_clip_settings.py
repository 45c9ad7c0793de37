"""OpenCLIP's settings: open_clip_config.json, or a known architecture that --like names for a bare file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from overflight.export.checkpoint import OPEN_CLIP
from overflight.export.preprocessing import OPENAI_MEAN, OPENAI_STD, Triple
from overflight.export.settings import read_settings
from overflight.export.tables import ignored_settings, read_table
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint

_TABLE = Path(__file__).with_name("architectures.toml")
# OpenAI's own archives mention the class of their activation, and always have 64 numbers per head.
_OPENAI_MARK = ("QuickGELU",)


class VisionSettings(msgspec.Struct, frozen=True):
    """vision_cfg with open_clip's defaults; the last group must be at its default."""

    image_size: int | tuple[int, int] = 224
    layers: int | tuple[int, int, int, int] = 12
    width: int = 768
    head_width: int = 64
    mlp_ratio: float = 4.0
    patch_size: int = 16
    ls_init_value: float | None = None
    no_ln_pre: bool = False
    pos_embed_type: str = "learnable"
    final_ln_after_pool: bool = False
    pool_type: str = "tok"
    act_kwargs: dict[str, Any] = {}
    norm_kwargs: dict[str, Any] = {}
    timm_model_name: str | None = None
    timm_pool: str = "avg"
    timm_proj: str | None = "linear"
    timm_proj_bias: bool = False

    attentional_pool: bool | str = False
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class TextSettings(msgspec.Struct, frozen=True):
    """text_cfg with open_clip's defaults; the last group must be at its default."""

    context_length: int = 77
    vocab_size: int = 49408
    hf_tokenizer_name: str | None = None
    tokenizer_kwargs: dict[str, Any] = {}
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    ls_init_value: float | None = None
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    proj_bias: bool = False
    proj_type: str = "linear"
    act_kwargs: dict[str, Any] = {}
    norm_kwargs: dict[str, Any] = {}
    hf_model_name: str | None = None
    hf_proj_type: str = "mlp"
    hf_pooler_type: str = "mean_pooler"

    tokenizer_mode: str | None = None
    embed_cls: bool = False
    final_ln_after_pool: bool = False
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


# Parts of open_clip that no tower here has, with their neutral value.
_UNUSUAL: dict[str, Any] = {
    "attentional_pool": False,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "tokenizer_mode": None,
    "embed_cls": False,
}


class ModelSettings(msgspec.Struct, frozen=True):
    """model_cfg."""

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_bias: float | None = None


class PreprocessSettings(msgspec.Struct, frozen=True):
    """preprocess_cfg with open_clip's defaults."""

    size: int | tuple[int, ...] | None = None
    mode: str = "RGB"
    mean: Triple | float = OPENAI_MEAN
    std: Triple | float = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0


class _Top(msgspec.Struct, frozen=True):
    """open_clip_config.json."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any] = {}


class OpenClipSettings(msgspec.Struct, frozen=True):
    """Everything that open_clip's loader reads; ``where`` names it in errors."""

    where: str
    model: ModelSettings
    vision: VisionSettings
    text: TextSettings
    preprocess: PreprocessSettings


def read_open_clip_settings(checkpoint: Checkpoint) -> OpenClipSettings:
    """Find the settings of a checkpoint. Raises UsageError where a bare file would allow two readings."""
    path, like = checkpoint.file(OPEN_CLIP), checkpoint.like
    if path.is_file():
        if like is not None:
            raise UsageError(f"{path}: describes this model, so --like {like} has no meaning; remove --like")
        return _parse(checkpoint.settings(OPEN_CLIP), str(path))
    table = read_architectures()
    if like is not None:
        if like not in table:
            raise UsageError(f"--like {like}: no such architecture; known are {', '.join(table)}")
        return table[like].settings(f"--like {like}")
    fitting = {name: entry for name, entry in table.items() if _fits(checkpoint, entry)}
    own = [name for name, entry in fitting.items() if entry.openai and entry.quick_gelu]
    if own and any(name.endswith(_OPENAI_MARK) for name in checkpoint.classes):
        checkpoint.notes.append(f"OpenAI's own archive, read as {own[0]}")
        return table[own[0]].settings(own[0])
    known = f"its widths fit {' and '.join(fitting)}: name one with --like" if fitting else "its widths fit none known"
    raise UsageError(
        f"{checkpoint.source}: no {OPEN_CLIP} next to it, and a bare file does not tell its activation, head width "
        f"or resize; {known}, or put {OPEN_CLIP} there"
    )


class Architecture(msgspec.Struct, frozen=True):
    """One entry of the table."""

    vision: dict[str, Any]
    text: dict[str, Any]
    embed_dim: int
    activations: tuple[Literal["gelu", "quick-gelu"], ...]
    openai: bool = False
    resize: str = "shortest"
    quick_gelu: bool = False

    def settings(self, where: str) -> OpenClipSettings:
        """Say it as open_clip_config.json would."""
        model = {
            "embed_dim": self.embed_dim,
            "quick_gelu": self.quick_gelu,
            "vision_cfg": self.vision,
            "text_cfg": self.text,
        }
        return _parse({"model_cfg": model, "preprocess_cfg": {"resize_mode": self.resize}}, where)


def read_architectures() -> dict[str, Architecture]:
    """Read the table of known architectures; NAME-quickgelu is the one with quick GELU where both exist."""
    entries = msgspec.convert(read_table(_TABLE), dict[str, Architecture])
    table = {}
    for name, entry in entries.items():
        for activation in entry.activations:
            ending = "-quickgelu" if activation == "quick-gelu" and len(entry.activations) > 1 else ""
            table[name + ending] = msgspec.structs.replace(entry, quick_gelu=activation == "quick-gelu")
    return table


def _parse(raw: dict[str, Any], where: str) -> OpenClipSettings:
    ignored = ignored_settings("open_clip")
    top = read_settings(raw, _Top, where, frozenset())
    model = read_settings(top.model_cfg, ModelSettings, f"{where}: model_cfg", ignored)
    vision = read_settings(model.vision_cfg, VisionSettings, f"{where}: vision_cfg", ignored)
    text = read_settings(model.text_cfg, TextSettings, f"{where}: text_cfg", ignored)
    preprocess = read_settings(top.preprocess_cfg, PreprocessSettings, f"{where}: preprocess_cfg", frozenset())
    for part, settings in (("vision_cfg", vision), ("text_cfg", text)):
        for key, neutral in _UNUSUAL.items():
            if getattr(settings, key, neutral) != neutral:
                raise UsageError(
                    f"{where}: {part} has {key} {getattr(settings, key)!r}; such a tower cannot be exported"
                )
    return OpenClipSettings(where, model, vision, text, preprocess)


def _fits(checkpoint: Checkpoint, entry: Architecture) -> bool:
    """Tell whether the widths, the depth and the input of an architecture are those of the tensors."""
    vision, first, positions = entry.vision, "visual.conv1.weight", "visual.positional_embedding"
    tokens = "token_embedding.weight" if checkpoint.has("token_embedding.weight") else "text.token_embedding.weight"
    context = tokens.replace("token_embedding.weight", "positional_embedding")
    if not (checkpoint.has(tokens) and checkpoint.has(context)):
        return False
    if checkpoint.shape(context) != (entry.text.get("context_length", 77), entry.text["width"]):
        return False
    if isinstance(vision["layers"], list):
        return _depths(checkpoint) == vision["layers"]
    patch, cells = vision["patch_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    return (
        checkpoint.has(first)
        and checkpoint.has(positions)
        and checkpoint.shape(first) == (vision["width"], 3, patch, patch)
        and checkpoint.shape(positions) == (cells + 1, vision["width"])
    )


def _depths(checkpoint: Checkpoint) -> list[int]:
    """Count the blocks of a ResNet's four stages."""
    stages = ("visual.layer1.", "visual.layer2.", "visual.layer3.", "visual.layer4.")
    return [len({name.split(".")[2] for name in checkpoint.names if name.startswith(stage)}) for stage in stages]
