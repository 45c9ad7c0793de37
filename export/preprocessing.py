"""How transformers' settings prepare pictures: the bundle's resize contract and the tower's pixel constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from overflight.export.settings import read_json, read_settings
from overflight.export.tables import ignored_settings
from overflight.export.tower import Pixels
from overflight.runtime.bundle import Resize
from overflight.runtime.errors import MissingError, UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.runtime.bundle import Filter

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pillow's numbers for the filters that the runtime can reproduce; nearest (0) and hamming (5) were never trained with.
_FILTERS: dict[int, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}

Triple = tuple[float, float, float]
Size = int | dict[str, int | None]

_EDGE: dict[str, int | None] = {"shortest_edge": 224}
_SQUARE: dict[str, int | None] = {"height": 224, "width": 224}


class ClipPreprocessing(msgspec.Struct, frozen=True):
    """Settings of CLIPImageProcessor, with its defaults."""

    size: Size = msgspec.field(default_factory=lambda: dict(_EDGE))
    crop_size: Size = msgspec.field(default_factory=lambda: dict(_SQUARE))
    image_mean: Triple | float = OPENAI_MEAN
    image_std: Triple | float = OPENAI_STD
    resample: int = 3
    rescale_factor: float = 1 / 255
    do_resize: bool = True
    do_center_crop: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_pad: bool = False
    use_square_size: bool = False


class SiglipPreprocessing(ClipPreprocessing, frozen=True):
    """Settings of SiglipImageProcessor, with its defaults."""

    size: Size = msgspec.field(default_factory=lambda: dict(_SQUARE))
    image_mean: Triple | float = (0.5, 0.5, 0.5)
    image_std: Triple | float = (0.5, 0.5, 0.5)
    do_center_crop: bool = False


class VitPreprocessing(SiglipPreprocessing, frozen=True):
    """Settings of ViTImageProcessor, with its defaults."""

    resample: int = 2


_CLASSES: dict[str, type[ClipPreprocessing]] = {
    "CLIPImageProcessor": ClipPreprocessing,
    "CLIPFeatureExtractor": ClipPreprocessing,
    "SiglipImageProcessor": SiglipPreprocessing,
    "ViTImageProcessor": VitPreprocessing,
    "ViTFeatureExtractor": VitPreprocessing,
}
_BY_MODEL = {"clip": "CLIPImageProcessor", "siglip": "SiglipImageProcessor", "siglip2": "SiglipImageProcessor"}


def read_preprocessing(checkpoint: Checkpoint, side: int) -> tuple[Resize, Pixels]:
    """Read how a picture becomes the tower's ``side`` x ``side`` input. Raises UsageError where it cannot be done."""
    path, raw = _find(checkpoint)
    form = _CLASSES[_class_name(checkpoint, raw)]
    found = read_settings(raw, form, path, ignored_settings("preprocessor"))
    return _read_resize(checkpoint, found, side), _read_pixels(checkpoint, found)


def _find(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Return the settings: ``image_processor`` in processor_config.json comes first, as in transformers 5."""
    processor = checkpoint.file(PROCESSOR)
    if processor.is_file():
        nested = read_json(processor).get("image_processor")
        if isinstance(nested, dict):
            return f"{processor}: image_processor", nested
    path = checkpoint.file(PREPROCESSOR)
    if not path.is_file():
        raise MissingError(f"{checkpoint.directory}: no {PREPROCESSOR}; resize, mean and std are unknown without it")
    return str(path), read_json(path)


def _class_name(checkpoint: Checkpoint, raw: dict[str, Any]) -> str:
    """Return the class whose defaults apply to omitted keys: the one that is named, else the model's own."""
    named = raw.get("image_processor_type") or raw.get("feature_extractor_type")
    if named is None:
        kind = checkpoint.settings().get("model_type") if checkpoint.file("config.json").is_file() else None
        return _BY_MODEL.get(str(kind), "CLIPImageProcessor")
    name = str(named).removesuffix("Pil").removesuffix("Fast")
    if name not in _CLASSES:
        raise UsageError(
            f"{checkpoint.directory}: pictures are prepared by {str(named)[:60]}, expected one of "
            + ", ".join(name for name in _CLASSES if name.endswith("ImageProcessor"))
        )
    return name


def _read_resize(checkpoint: Checkpoint, found: ClipPreprocessing, side: int) -> Resize:
    if found.resample not in _FILTERS:
        raise UsageError(
            f"{checkpoint.directory}: resample {found.resample} in the preprocessor settings, expected one of "
            + ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
        )
    odd = "do_resize false" if not found.do_resize else "do_pad true" if found.do_pad else ""
    if odd or found.use_square_size:
        raise UsageError(
            f"{checkpoint.directory}: {odd or 'use_square_size true'} in the preprocessor settings; the runtime always "
            "resizes a picture and never pads it, so the bundle would answer differently"
        )
    scaled, cropped = (
        _sides(found.size, square=isinstance(found, VitPreprocessing)),
        _sides(found.crop_size, square=True),
    )
    kind = _FILTERS[found.resample]
    if found.do_center_crop and cropped == (side, side) and len(scaled) == 1 and scaled[0] >= side:
        return Resize(side, kind, "crop", edge=0 if scaled[0] == side else scaled[0])
    if scaled == (side, side) and (not found.do_center_crop or cropped == (side, side)):
        return Resize(side, kind, "squash")
    if len(scaled) == 1 and not found.do_center_crop:
        raise UsageError(f"{checkpoint.directory}: the preprocessor keeps the picture's shape; a tower needs a square")
    raise UsageError(
        f"{checkpoint.directory}: the preprocessor makes {found.size}"
        + (f" and crops {found.crop_size}" if found.do_center_crop else "")
        + f", but the tower takes {side} x {side} pixels; use a checkpoint whose two settings agree"
    )


def _sides(size: Size, *, square: bool) -> tuple[int, ...]:
    """Return (height, width), or (shortest edge,). A plain number is a square, or the shortest edge."""
    if isinstance(size, int):
        return (size, size) if square else (size,)
    known = {key: value for key, value in size.items() if value is not None}
    if known.keys() == {"shortest_edge"}:
        return (known["shortest_edge"],)
    return (known["height"], known["width"]) if known.keys() == {"height", "width"} else ()


def _read_pixels(checkpoint: Checkpoint, found: ClipPreprocessing) -> Pixels:
    rescale = found.rescale_factor if found.do_rescale else 1.0
    if not found.do_normalize:
        return Pixels(rescale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = triple(found.image_mean), triple(found.image_std)
    if min(std) <= 0:
        raise UsageError(
            f"{checkpoint.directory}: image_std {list(std)} in the preprocessor settings, expected positive numbers"
        )
    return Pixels(rescale, mean, std)


def triple(values: Triple | float) -> Triple:
    """Return one number per channel."""
    return (values, values, values) if isinstance(values, int | float) else values
