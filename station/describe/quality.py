"""Quality of a picture, measured on its pixels: sharpness, haze, exposure, bright smooth area, resolution.

No sentence is asked here. Quality advises: a calm lake has no texture, so its sharpness is not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.runtime.sources.image import opencv
from overflight.station.describe.record import Alternative, Field, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.station.ground.picture import GroundSample

SIDE_PX = 512  # a picture is measured at this size from its middle, and sharpness on a crop at full resolution
LEAST_TEXTURE = 1.5  # grey levels of mean gradient, below which sharpness says nothing
_DARK_PATCH_PX = 15
_MOST_GSD_M = 30.0

# Upper limits of each word but the last, read off 100 AID pictures that were blurred, veiled and exposed by known
# amounts: docs/describe.md has the figures.
_WORDS: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "blur": ((0.29, 0.5), ("sharp", "slightly blurred", "blurred")),
    "haze": ((0.33, 0.5), ("clear", "light haze", "dense haze")),
    "exposure": ((0.2, 0.7), ("dark", "normal", "bright")),
    "bright smooth area": ((0.05, 0.3), ("none", "some", "much")),
    "resolution": ((0.1, 0.5, 2.0, _MOST_GSD_M), ("below 10 cm", "10 to 50 cm", "0.5 to 2 m", "2 to 30 m", "coarse")),
}
_UNITS = {"blur": "blur index, 0 to 1", "haze": "median dark channel, 0 to 1", "exposure": "mean luminance, 0 to 1",
          "bright smooth area": "share of pixels", "resolution": "m"}  # fmt: skip


class Measures(NamedTuple):
    """The measured numbers; ``blur`` is None where the picture has too little texture."""

    blur: float | None
    haze: float
    exposure: float
    clipped: float
    bright_smooth: float


def measure(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> Measures:
    """Measure RGB pixels ``[H, W, 3]`` where ``known``."""
    grey = luminance(pixels)
    return Measures(
        blur=blur_index(_middle(grey)),
        haze=_haze(pixels, known),
        exposure=float(grey[known].mean()) / 255,
        clipped=float(((grey[known] <= 2) | (grey[known] >= 253)).mean()),
        bright_smooth=_bright_smooth(pixels, grey, known),
    )


def blur_index(grey: NDArray[np.float32]) -> float | None:
    """Return how blurred a grey picture is, 0 to 1; None where it has too little texture to say.

    A picture is blurred once more: the sharper it was, the more its differences between neighbours shrink (Crété et
    al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric", 2007).
    """
    cv2 = opencv()
    if float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) < 2 * LEAST_TEXTURE:
        return None
    found = []
    for axis, kernel in ((0, (1, 9)), (1, (9, 1))):
        again = cv2.blur(grey, kernel)
        before, after = np.abs(np.diff(grey, axis=axis)), np.abs(np.diff(again, axis=axis))
        lost = np.maximum(0, before - after)
        found.append(float((before.sum() - lost.sum()) / before.sum()))
    return max(found)


def quality_fields(measures: Measures, ground: GroundSample | None, hashes: tuple[str, str, str]) -> list[Field]:
    """Return the measured fields."""
    values: list[tuple[str, float | None, Reason]] = [
        ("blur", measures.blur, "too little texture"),
        ("haze", measures.haze, ""),
        ("exposure", measures.exposure, ""),
        ("bright smooth area", measures.bright_smooth, ""),
        ("resolution", None if ground is None else ground.gsd_m, "not measured"),
    ]
    return [_field(name, value, reason, hashes) for name, value, reason in values]


def _field(name: str, value: float | None, reason: Reason, hashes: tuple[str, str, str]) -> Field:
    limits, words = _WORDS[name]
    word = near = None
    margin = None
    if value is not None:
        place = int(np.searchsorted(limits, value, side="right"))
        word = words[place]
        nearest = min(range(len(limits)), key=lambda index: abs(limits[index] - value))
        margin = round(abs(limits[nearest] - value), 4)
        near = words[nearest if nearest < place else nearest + 1]
    return Field(
        dimension="quality",
        name=name,
        value=word,
        score=None if value is None else round(value, 4),
        margin=margin,
        alternatives=() if near is None else (Alternative(near, None),),
        abstained=value is None,
        reason=reason if value is None else "",
        unit=_UNITS[name],
        model=hashes[0],
        bank="",
        source=hashes[2],
    )


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return BT.601 luminance ``[H, W]`` of RGB pixels, 0 to 255."""
    return np.asarray(pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def _middle(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    top, left = (max(0, (length - SIDE_PX) // 2) for length in grey.shape)
    return grey[top : top + SIDE_PX, left : left + SIDE_PX]


def _haze(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> float:
    """Return the median of the dark channel (He et al., "Single image haze removal", 2009): haze lifts the darkest."""
    cv2 = opencv()
    height, width = known.shape
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).min(axis=2)
    mask = cv2.resize(known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    dark = cv2.erode(small, np.ones((_DARK_PATCH_PX, _DARK_PATCH_PX), np.uint8))
    return float(np.median(dark[mask] if mask.any() else dark)) / 255


def _bright_smooth(pixels: NDArray[np.uint8], grey: NDArray[np.float32], known: NDArray[np.bool_]) -> float:
    """Return the share of bright, colourless, smooth pixels: cloud, snow, foam and white roofs look like this."""
    cv2 = opencv()
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    rough = np.abs(grey - cv2.blur(grey, (9, 9)))
    found = (grey > 200) & (spread < 30) & (rough < 12) & known
    return float(found.sum() / max(1, known.sum()))
