"""OpenCLIP's layout: open_clip_config.json (or a known architecture) and tensors to a description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overflight.export.layouts.modified_resnet import describe_resnet
from overflight.export.layouts.open_clip_settings import (
    PreprocessSettings,
    TextSettings,
    VisionSettings,
    read_open_clip_settings,
)
from overflight.export.layouts.open_clip_tensors import Reader, positions_of
from overflight.export.layouts.timm_siglip import describe_timm
from overflight.export.layouts.transformers_tensors import patch_product
from overflight.export.preprocessing import triple
from overflight.export.tokenizer_files import identify_open_clip
from overflight.export.tower import (
    Activation,
    EndPool,
    ImageTower,
    Linear,
    MeanPool,
    Model,
    Pixels,
    Pool,
    PositionPool,
    ResNetTower,
    TextTower,
)
from overflight.runtime.bundle import Resize, Tokenising
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.export.layouts.open_clip_settings import OpenClipSettings
    from overflight.runtime.bundle import Filter, Fit

_FITS: dict[str, Fit] = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}
_FILTERS: dict[str, Filter] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
_EPSILON = 1e-5  # torch's own
# What OpenAI's archives and OpenCLIP's older checkpoints store next to the weights.
_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "num_batches_tracked")


def describe_open_clip(checkpoint: Checkpoint) -> Model:
    """Describe both towers. Raises UsageError for what cannot be exported."""
    known = read_open_clip_settings(checkpoint)
    checkpoint.skip(*_CONSTANTS)
    width = known.model.embed_dim
    image = _image_tower(checkpoint, known)
    text = _text_tower(checkpoint, known)
    resize, _ = read_open_clip_resize(checkpoint, image.side)
    biased = known.model.init_logit_bias is not None
    if biased and not checkpoint.has("logit_bias"):
        checkpoint.notes.append("init_logit_bias without a logit_bias: it is 0, as in open_clip")
    sigmoid = biased or checkpoint.has("logit_bias")
    siglip = known.vision.timm_model_name is not None
    return Model(
        family="siglip" if siglip else "clip",
        image=image,
        text=text,
        embedding=width,
        logit_scale=checkpoint.scalar("logit_scale"),
        logit_bias=checkpoint.scalar("logit_bias") if checkpoint.has("logit_bias") else 0.0,
        score="sigmoid" if sigmoid else "softmax",
        resize=resize,
        tokenising=_tokenising(checkpoint, known.where, known.text),
    )


def read_open_clip_resize(checkpoint: Checkpoint, side: int) -> tuple[Resize, Pixels]:
    """Read how open_clip prepares a picture. Raises UsageError where the runtime cannot."""
    known = read_open_clip_settings(checkpoint)
    found = known.preprocess
    sizes = {found.size} if isinstance(found.size, int) else set(found.size or ())
    odd = {
        "interpolation": found.interpolation not in _FILTERS,
        "resize_mode": found.resize_mode not in _FITS,
        "mode": found.mode != "RGB",
        "fill_color": not 0 <= found.fill_color <= 255,
        "size": bool(sizes - {side}),
        "std": min(triple(found.std)) <= 0,
    }
    for key, refused in odd.items():
        if refused:
            raise UsageError(
                f"{known.where}: preprocess_cfg has {key} {getattr(found, key)!r}, which cannot be done for a tower of "
                f"{side} x {side} pixels; expected what open_clip itself accepts"
            )
    resize = Resize(
        side, _FILTERS[found.interpolation], _FITS[found.resize_mode], rounding="even", fill=found.fill_color
    )
    return resize, pixels_of(found)


def pixels_of(found: PreprocessSettings) -> Pixels:
    """Return the pixel constants: open_clip always divides by 255."""
    return Pixels(1 / 255, triple(found.mean), triple(found.std))


def _image_tower(checkpoint: Checkpoint, known: OpenClipSettings) -> ImageTower | ResNetTower:
    settings, pixels, width = known.vision, pixels_of(known.preprocess), known.model.embed_dim
    if settings.timm_model_name is not None:
        return describe_timm(checkpoint, known, pixels)
    if isinstance(settings.layers, tuple):
        return describe_resnet(checkpoint, known.where, settings, pixels, width)
    side = _side(known.where, settings)
    inner = int(settings.width * settings.mlp_ratio)
    reader = Reader(
        checkpoint,
        "visual.",
        settings.width,
        inner,
        _heads(known.where, settings.width, settings.head_width),
        _activation(known.where, known.model.quick_gelu, settings.act_kwargs),
        _epsilon(known.where, settings.norm_kwargs),
        layer_scale=settings.ls_init_value is not None,
    )
    kernel = reader.weight("conv1.weight", settings.width, 3, settings.patch_size, settings.patch_size)
    projection = Linear(reader.weight("proj", settings.width, width))
    length = (side // settings.patch_size) ** 2 + 1
    return ImageTower(
        side=side,
        patch=settings.patch_size,
        pixels=pixels,
        patches=Linear(patch_product(kernel)),
        class_token=reader.weight("class_embedding", settings.width),
        norm_before=None if settings.no_ln_pre else reader.norm("ln_pre"),
        encoder=reader.encoder(
            settings.layers,
            reader.weight("positional_embedding", length, settings.width),
            "ln_post",
            _image_pool(known.where, settings),
            projection,
        ),
    )


def _side(where: str, settings: VisionSettings) -> int:
    sides = {settings.image_size} if isinstance(settings.image_size, int) else set(settings.image_size)
    side = max(sides)
    if len(sides) != 1 or settings.patch_size < 1 or side < settings.patch_size:
        raise UsageError(
            f"{where}: image_size {settings.image_size} in patches of {settings.patch_size}; expected a square of at "
            "least one patch"
        )
    return side


def _heads(where: str, width: int, head_width: int) -> int:
    if head_width < 1 or width < head_width:
        raise UsageError(f"{where}: a width of {width} in heads of {head_width}; expected at least one head")
    return width // head_width


def _activation(where: str, quick: bool, options: dict[str, Any]) -> Activation:
    match (quick, options):
        case (True, {}) if not options:
            return "quick-gelu"
        case (False, {}) if not options or options == {"approximate": "none"}:
            return "gelu"
        case (False, {"approximate": "tanh"}) if len(options) == 1:
            return "gelu-tanh"
    raise UsageError(f"{where}: quick_gelu {quick} with act_kwargs {options}; no such activation is known")


def _epsilon(where: str, options: dict[str, Any]) -> float:
    epsilon = options.get("eps", _EPSILON)
    if options.keys() - {"eps"} or not isinstance(epsilon, int | float):
        raise UsageError(f"{where}: norm_kwargs {options}; expected only eps")
    return float(epsilon)


def _image_pool(where: str, settings: VisionSettings) -> Pool:
    if settings.pos_embed_type not in ("learnable", "sin_cos_2d"):
        raise UsageError(f"{where}: pos_embed_type {settings.pos_embed_type!r}, expected learnable or sin_cos_2d")
    match settings.pool_type:
        case "tok":
            return PositionPool(0)
        case "avg":
            return MeanPool(1, norm_after=settings.final_ln_after_pool)
    raise UsageError(f"{where}: vision_cfg has pool_type {settings.pool_type!r}, expected tok or avg")


def _text_tower(checkpoint: Checkpoint, known: OpenClipSettings) -> TextTower:
    settings, where = known.text, known.where
    if settings.hf_model_name is not None:
        raise UsageError(
            f"{where}: the text tower is {settings.hf_model_name} of transformers; only OpenCLIP's own text "
            "transformer can be exported"
        )
    prefix = "text." if checkpoint.has("text.token_embedding.weight") else ""
    if settings.width < 1 or settings.heads < 1 or settings.width % settings.heads:
        raise UsageError(f"{where}: {settings.heads} heads do not make a text tower of width {settings.width}")
    reader = Reader(
        checkpoint,
        prefix,
        settings.width,
        int(settings.width * settings.mlp_ratio),
        settings.heads,
        _activation(where, known.model.quick_gelu, settings.act_kwargs),
        _epsilon(where, settings.norm_kwargs),
        layer_scale=settings.ls_init_value is not None,
    )
    return TextTower(
        tokens=reader.weight("token_embedding.weight", settings.vocab_size, settings.width),
        causal=not settings.no_causal_mask,
        encoder=reader.encoder(
            settings.layers,
            positions_of(checkpoint, prefix, settings.context_length, settings.width),
            "ln_final",
            _text_pool(where, settings),
            _text_projection(reader, where, settings, known.model.embed_dim),
        ),
    )


def _text_pool(where: str, settings: TextSettings) -> Pool:
    match settings.pool_type:
        case "argmax":
            return EndPool(None)
        case "eos" if 0 <= settings.eos_id < settings.vocab_size:
            return EndPool(settings.eos_id)
        case "first":
            return PositionPool(0)
        case "last":
            return PositionPool(-1)
    raise UsageError(
        f"{where}: text_cfg has pool_type {settings.pool_type!r} (eos_id {settings.eos_id}, vocab_size "
        f"{settings.vocab_size}), expected argmax, eos, first or last"
    )


def _text_projection(reader: Reader, where: str, settings: TextSettings, width: int) -> Linear | None:
    if settings.proj_type == "none":
        if settings.width != width:
            raise UsageError(f"{where}: proj_type none, but texts have {settings.width} numbers and pictures {width}")
        return None
    if settings.proj_type != "linear":
        raise UsageError(f"{where}: proj_type {settings.proj_type!r}, expected linear or none")
    if settings.proj_bias:
        return reader.linear("text_projection", settings.width, width)
    return Linear(reader.weight("text_projection", settings.width, width))


def _tokenising(checkpoint: Checkpoint, where: str, settings: TextSettings) -> Tokenising:
    """Say how open_clip tokenises: CLIP's own tokenizer, or one of transformers behind a cleaning of its own."""
    context, vocabulary, named = settings.context_length, settings.vocab_size, settings.hf_tokenizer_name
    identify_open_clip(checkpoint, named)
    odd = settings.tokenizer_kwargs.keys() - {"clean"}
    clean = settings.tokenizer_kwargs.get("clean", "lower" if named is None else "whitespace")
    pad = 0 if named is None else None  # CLIP's own tokenizer fills with zeros
    match clean:
        case "lower" | "whitespace" if not odd:
            return Tokenising("open_clip", context, vocabulary, clean, pad)
        case "canonicalize" if not odd:
            return Tokenising("open_clip", context, vocabulary, "canonicalise", pad)
    raise UsageError(
        f"{where}: tokenizer_kwargs {settings.tokenizer_kwargs}; expected only clean, as open_clip knows it"
    )
