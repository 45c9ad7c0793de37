"""Varied copies of frames: another light, haze, sensor or height, which the calibration's own frames do not show.

Ranges that were read from one place and one sensor are too narrow elsewhere, and a hold-out from the same flights does
not show it. The copies are the same in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Frame = NDArray[np.float32]

_HAZE_GREY = 220.0
_NOISE_GREY = 20.0  # standard deviation
_TINT = np.array([1.15, 1.0, 0.8], np.float32)  # evening light


def _dark(frame: Frame, random: np.random.Generator) -> Frame:
    return frame * random.uniform(0.3, 0.6)


def _bright(frame: Frame, random: np.random.Generator) -> Frame:
    return frame * random.uniform(1.4, 2.0)


def _haze(frame: Frame, random: np.random.Generator) -> Frame:
    share = random.uniform(0.3, 0.6)
    return frame * (1 - share) + _HAZE_GREY * share


def _contrast(frame: Frame, random: np.random.Generator) -> Frame:
    mean = frame.mean()
    return np.asarray((frame - mean) * random.uniform(1.5, 2.2) + mean, np.float32)


def _tint(frame: Frame, random: np.random.Generator) -> Frame:
    return frame * (_TINT if random.random() < 0.5 else _TINT[::-1])


def _noise(frame: Frame, random: np.random.Generator) -> Frame:
    return frame + random.normal(0, _NOISE_GREY, frame.shape).astype(np.float32)


def _near(frame: Frame, random: np.random.Generator) -> Frame:
    """Return a part of the frame, enlarged: the same ground from less height, soft as a small picture is."""
    return _sampled(frame, random.uniform(0.25, 0.5), random)


def _coarse(frame: Frame, random: np.random.Generator) -> Frame:
    """Return the frame in fewer, larger pixels: an old link, or a blurred lens."""
    side = len(frame)
    rows = np.arange(side) * int(side * random.uniform(0.25, 0.5)) // side
    rows = (rows * side) // (rows.max() + 1)
    coarse: Frame = frame[rows][:, rows]
    return coarse


def _sampled(frame: Frame, share: float, random: np.random.Generator) -> Frame:
    side = len(frame)
    top, left = random.uniform(0, (1 - share) * (side - 1), 2)
    steps = np.linspace(0, share * (side - 1), side)
    across = _blended(frame, left + steps, 1)
    return _blended(across, top + steps, 0)


def _blended(frame: Frame, places: NDArray[np.float64], axis: int) -> Frame:
    """Sample along an axis between pixels."""
    first = np.minimum(places.astype(int), frame.shape[axis] - 2)
    part = (places - first).astype(np.float32).reshape([-1 if one == axis else 1 for one in range(3)])
    return np.asarray(frame.take(first, axis) * (1 - part) + frame.take(first + 1, axis) * part, np.float32)


KINDS: tuple[Callable[[Frame, np.random.Generator], Frame], ...] = (
    _dark, _near, _haze, _contrast, _near, _noise, _tint, _bright, _near, _coarse
)  # fmt: skip


def vary(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return one varied copy of each frame ``[N, S, S, 3]``, the kinds in turn."""
    copies = np.empty_like(frames)
    for number, frame in enumerate(frames):
        random = np.random.default_rng([7, number])
        made = KINDS[number % len(KINDS)](frame.astype(np.float32), random)
        copies[number] = np.clip(np.rint(made), 0, 255).astype(np.uint8)
    return copies
