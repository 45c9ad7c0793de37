"""What a checkpoint says about preparing pictures, as the bundle's resize contract and the tower's pixel constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.tower import Pixels
from overflight.runtime.bundle import Resize
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.runtime.bundle import Filter

# Pillow's numbers for the filters that the runtime can reproduce; nearest (0) and hamming (5) were never trained with.
_FILTERS: dict[int, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}

Triple = tuple[float, float, float]


class _Preprocessing(msgspec.Struct, frozen=True):
    size: int | dict[str, int]
    image_mean: Triple | None = None
    image_std: Triple | None = None
    resample: int = 3
    rescale_factor: float = 1 / 255
    crop_size: int | dict[str, int] | None = None
    do_center_crop: bool | None = None
    do_normalize: bool | None = None
    do_rescale: bool | None = None


def read_preprocessing(checkpoint: Checkpoint, side: int) -> tuple[Resize, Pixels]:
    """Read how a picture becomes the tower's ``side`` x ``side`` input. Raises UsageError where it cannot be done."""
    try:
        found = msgspec.convert(checkpoint.preprocessing(), _Preprocessing)
    except msgspec.ValidationError as error:
        raise UsageError(f"{checkpoint.directory}: preprocessor settings: {error}") from error
    return _read_resize(checkpoint, found, side), _read_pixels(checkpoint, found)


def _read_resize(checkpoint: Checkpoint, found: _Preprocessing, side: int) -> Resize:
    if found.resample not in _FILTERS:
        raise UsageError(
            f"{checkpoint.directory}: resample {found.resample} in the preprocessor settings, expected one of "
            + ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
        )
    target = _sides(found.crop_size if found.do_center_crop and found.crop_size else found.size)
    if target != {side} or _sides(found.size) != {side}:
        raise UsageError(
            f"{checkpoint.directory}: the preprocessor makes {found.size} (crop {found.crop_size}), but the tower "
            f"takes {side} x {side} pixels; use a checkpoint whose two settings agree"
        )
    squared = isinstance(found.size, dict) and "shortest_edge" not in found.size
    if not squared and not found.do_center_crop and isinstance(found.size, dict):
        raise UsageError(f"{checkpoint.directory}: the preprocessor keeps the picture's shape; a tower needs a square")
    return Resize(side, _FILTERS[found.resample], "crop" if found.do_center_crop and not squared else "squash")


def _sides(size: int | dict[str, int]) -> set[int]:
    return {size} if isinstance(size, int) else set(size.values())


def _read_pixels(checkpoint: Checkpoint, found: _Preprocessing) -> Pixels:
    rescale = 1.0 if found.do_rescale is False else found.rescale_factor
    if found.do_normalize is False:
        return Pixels(rescale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if found.image_mean is None or found.image_std is None or min(found.image_std) <= 0:
        raise UsageError(
            f"{checkpoint.directory}: image_mean {found.image_mean} and image_std {found.image_std} in the "
            "preprocessor settings, expected three numbers each, the second positive"
        )
    return Pixels(rescale, found.image_mean, found.image_std)
