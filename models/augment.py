"""Change training images as a flight would: crop, turn, flip, light, haze, blur, noise, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from overflight.models.towers import MEAN, STD

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Strength:
    """How often and how far images are changed; shares are probabilities per image."""

    smallest_crop: float = 0.55
    stretch: float = 1.25
    blur: float = 0.08
    jpeg: float = 0.08
    haze: float = 0.08
    noise: float = 0.08
    light: float = 0.25
    saturation: float = 0.35
    tint: float = 0.06


def crop_box(side: int, strength: Strength, draw: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a crop: its area between `smallest_crop` and 1, its sides' ratio up to `stretch`."""
    area = draw.uniform(strength.smallest_crop, 1.0) * side * side
    ratio = np.exp(draw.uniform(-1.0, 1.0) * np.log(strength.stretch))
    width, height = min(side, np.sqrt(area * ratio)), min(side, np.sqrt(area / ratio))
    left, top = draw.uniform(0, side - width), draw.uniform(0, side - height)
    return left, top, left + width, top + height


def recompress(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after one JPEG round trip."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def shoot(frame: np.ndarray, px: int, strength: Strength, draw: np.random.Generator) -> np.ndarray:
    """Return one changed view uint8 `[px, px, 3]` of a frame: crop, blur, JPEG, quarter turns."""
    box = crop_box(frame.shape[0], strength, draw)
    return spoil(Image.fromarray(frame).resize((px, px), Image.Resampling.BICUBIC, box=box), strength, draw)


def spoil(image: Image.Image, strength: Strength, draw: np.random.Generator) -> np.ndarray:
    """Return a picture uint8 `[H, W, 3]` after blur, JPEG and quarter turns, each by chance."""
    if draw.random() < strength.blur:
        image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 1.6)))
    if draw.random() < strength.jpeg:
        image = recompress(image, int(draw.integers(20, 80)))
    view = np.rot90(np.asarray(image), int(draw.integers(4)))
    return np.ascontiguousarray(view[:, ::-1] if draw.random() < 0.5 else view)


GREY = np.full((3, 3), 1 / 3, dtype=np.float32)
IDENTITY = np.eye(3, dtype=np.float32)


def draw_light(mean: float, strength: Strength, draw: np.random.Generator) -> np.ndarray:
    """Draw one colour change as a matrix float32 `[3, 4]` on RGB in 0..1.

    Brightness, tint, saturation, contrast about the image's `mean` and haze are all affine.
    """
    gain = draw.uniform(1 - strength.light, 1 + strength.light)
    tint = draw.uniform(1 - strength.tint, 1 + strength.tint, 3)
    colour = draw.uniform(1 - strength.saturation, 1 + strength.saturation)
    contrast = draw.uniform(1 - strength.light, 1 + strength.light)
    matrix = (colour * IDENTITY + (1 - colour) * GREY) @ np.diag(gain * tint) * contrast
    offset = (1 - contrast) * gain * mean
    if draw.random() < strength.haze:
        veil = draw.uniform(0.1, 0.5)
        matrix = matrix * (1 - veil)
        offset = offset * (1 - veil) + veil * draw.uniform(0.75, 0.95)
    return np.concatenate([matrix, np.full((3, 1), offset)], axis=1).astype(np.float32)


def relight(views: np.ndarray, strength: Strength, draw: np.random.Generator) -> Tensor:
    """Return normalised float `[N, 3, H, W]` of uint8 views with changed colours and some noise."""
    n, height, width, _ = views.shape
    changes = [draw_light(float(view[::4, ::4].mean()) / 255, strength, draw) for view in views]
    affine = torch.from_numpy(np.stack(changes))
    deviation = torch.tensor(STD)
    matrix = affine[:, :, :3] / (255 * deviation[:, None])
    offset = (affine[:, :, 3] - torch.tensor(MEAN)) / deviation
    flat = torch.from_numpy(views).view(n, -1, 3).float().transpose(1, 2)
    out = torch.baddbmm(offset[:, :, None], matrix, flat).view(n, 3, height, width)
    for row in np.flatnonzero(draw.random(n) < strength.noise):
        out[row] += draw.uniform(0.05, 0.3) * torch.from_numpy(draw.standard_normal(out[row].shape, dtype=np.float32))
    return out


def standardise(pixels: np.ndarray) -> Tensor:
    """Return float `[N, 3, H, W]`, normalised, of float `[N, H, W, 3]` in 0..1."""
    scaled = (pixels - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def make_batch(frames: np.ndarray, px: int, strength: Strength, draw: np.random.Generator) -> Tensor:
    """Return a normalised training batch of changed views of uint8 frames."""
    views = np.stack([shoot(frame, px, strength, draw) for frame in frames])
    return relight(views, strength, draw)


def prepare(frames: Iterable[np.ndarray], px: int) -> Tensor:
    """Return frames as the checkpoint's image processor would: squashed bicubic, normalised."""
    views = [np.asarray(Image.fromarray(frame).resize((px, px), Image.Resampling.BICUBIC)) for frame in frames]
    return standardise(np.stack(views).astype(np.float32) / 255)
