"""The corruption suite: what weather, optics and links do to a picture, in fixed strengths."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from numpy.typing import NDArray

Corruption = Callable[["NDArray[np.uint8]"], "NDArray[np.uint8]"]


def blur(pixels: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    """Blur with a Gaussian of ``sigma_px`` of a picture 150 pixels high, in proportion to the picture."""
    return np.asarray(opencv().GaussianBlur(pixels, (0, 0), sigma_px * pixels.shape[0] / 150), np.uint8)


def haze(pixels: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    """Mix with light grey."""
    return np.asarray(np.rint(pixels * (1 - part) + 220.0 * part), np.uint8)


def noise(pixels: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Add Gaussian noise of ``sigma`` of full scale; the same picture always gets the same noise."""
    seed = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "little")
    drawn = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(pixels + 255 * sigma * drawn), 0, 255), np.uint8)


def compress(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Pass once through JPEG."""
    cv2 = opencv()
    _, raw = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(raw, cv2.IMREAD_COLOR)[:, :, ::-1])


def shrink(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Lower the resolution."""
    cv2 = opencv()
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def dim(pixels: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    """Under-expose."""
    return np.asarray(np.rint(pixels * gain), np.uint8)


def crop(pixels: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    """Keep the middle, ``part`` of the picture's sides: the same ground at another scale."""
    height, width = pixels.shape[:2]
    tall, wide = max(1, round(height * part)), max(1, round(width * part))
    top, left = (height - tall) // 2, (width - wide) // 2
    return pixels[top : top + tall, left : left + wide]


CORRUPTIONS: dict[str, Corruption] = {
    "blur 1 px": lambda pixels: blur(pixels, 1.0),
    "blur 2 px": lambda pixels: blur(pixels, 2.0),
    "haze 30 %": lambda pixels: haze(pixels, 0.3),
    "haze 60 %": lambda pixels: haze(pixels, 0.6),
    "noise 0.05": lambda pixels: noise(pixels, 0.05),
    "noise 0.10": lambda pixels: noise(pixels, 0.10),
    "JPEG quality 30": lambda pixels: compress(pixels, 30),
    "JPEG quality 10": lambda pixels: compress(pixels, 10),
    "half the resolution": lambda pixels: shrink(pixels, 0.5),
    "a third of the resolution": lambda pixels: shrink(pixels, 1 / 3),
    "half the light": lambda pixels: dim(pixels, 0.5),
}
SCALES: dict[str, Corruption] = {
    "half crop": lambda pixels: crop(pixels, 0.5),
    "quarter crop": lambda pixels: crop(pixels, 0.25),
}
