"""Spoil images as weather, optics and links do, for the robustness figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from overflight.models.augment import recompress

Spoiler = Callable[[np.ndarray], np.ndarray]


def blur(frame: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur with a Gaussian."""
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(sigma_px)))


def veil(frame: np.ndarray, share: float) -> np.ndarray:
    """Mix with the light grey of haze."""
    hazy: np.ndarray = (frame * (1 - share) + 220.0 * share).round().astype(np.uint8)
    return hazy


def scatter(frame: np.ndarray, sigma: float) -> np.ndarray:
    """Add Gaussian noise of `sigma` (of full scale 1), the same for every run."""
    draw = np.random.default_rng(int(frame.sum()) % 2**32)
    noisy = frame + 255 * sigma * draw.standard_normal(frame.shape, dtype=np.float32)
    clipped: np.ndarray = noisy.clip(0, 255).round().astype(np.uint8)
    return clipped


def compress(frame: np.ndarray, quality: int) -> np.ndarray:
    """Pass once through JPEG."""
    return np.asarray(recompress(Image.fromarray(frame), quality))


def shrink(frame: np.ndarray, factor: float) -> np.ndarray:
    """Lower the resolution."""
    side = round(frame.shape[0] * factor)
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def dim(frame: np.ndarray, gain: float) -> np.ndarray:
    """Under-expose."""
    darker: np.ndarray = (frame * gain).round().astype(np.uint8)
    return darker


SPOILERS: dict[str, Spoiler] = {
    "blur, sigma 1 px": lambda frame: blur(frame, 1.0),
    "blur, sigma 2 px": lambda frame: blur(frame, 2.0),
    "haze, 30 %": lambda frame: veil(frame, 0.3),
    "haze, 60 %": lambda frame: veil(frame, 0.6),
    "noise, sigma 0.05": lambda frame: scatter(frame, 0.05),
    "noise, sigma 0.10": lambda frame: scatter(frame, 0.10),
    "JPEG, quality 30": lambda frame: compress(frame, 30),
    "JPEG, quality 10": lambda frame: compress(frame, 10),
    "half the resolution (75 px)": lambda frame: shrink(frame, 0.5),
    "a third of the resolution (50 px)": lambda frame: shrink(frame, 1 / 3),
    "half the light": lambda frame: dim(frame, 0.5),
}
