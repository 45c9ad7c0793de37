"""The clip of each product: how far its input reaches before it is cut, and how much range moves into the weights.

Smoothing divides an input channel by s and multiplies the weight's row by it (Xiao et al., "SmoothQuant", 2023):
s_j = max|X_j|^alpha / max|W_j|^(1-alpha). Alpha is chosen with the plain clips, then the clip at that alpha, both by
what the product's output loses on real rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from overflight.calibration.ranges import Activity

    Matrix = NDArray[np.float32]

LEVELS = 127  # symmetric int8: -128 is not used
Clip = Literal["max", "99.999%", "99.99%", "99.9%", "mse"]
_PERCENTILES: dict[Clip, float] = {"99.999%": 0.99999, "99.99%": 0.9999, "99.9%": 0.999}
_ALPHAS = (0.25, 0.5, 0.75)
_TINY = 6e-8  # the least scale that half precision can hold


@dataclass(frozen=True, slots=True)
class Choice:
    """How one product is quantised: ``scale`` of its input after ``smoothing`` ``[K]``, and what that costs.

    ``error`` is ‖quantised - exact‖ / ‖exact‖ of the product's output on the tuning rows.
    """

    scale: float
    clip: Clip
    alpha: float
    smoothing: Matrix | None
    error: float


def choose(activity: Activity, weight: Matrix, *, smooth: bool) -> Choice:
    """Choose clip and smoothing for a product with ``weight`` ``[K, N]`` by its output error on ``activity.rows``."""
    exact = activity.rows @ weight
    trials = [_Trial(activity, weight, exact, alpha) for alpha in (0.0, *(_ALPHAS if smooth else ()))]
    found = [trial.choice(clip, limit) for trial in trials for clip, limit in trial.coarse()]
    first = min(found, key=lambda choice: choice.error)
    trial = next(trial for trial in trials if trial.alpha == first.alpha)
    return min([first, *(trial.choice(clip, limit) for clip, limit in trial.fine())], key=lambda choice: choice.error)


class _Trial:
    """One strength of smoothing, at which clips are tried."""

    def __init__(self, activity: Activity, weight: Matrix, exact: Matrix, alpha: float) -> None:
        self.alpha = alpha
        self._factors = _factors(activity.peak, weight, alpha) if alpha else None
        self._rows = activity.rows if self._factors is None else activity.rows / self._factors
        peak = activity.peak if self._factors is None else activity.peak / self._factors
        self._peak = float(peak.max())
        self._rounded = round_weight(weight if self._factors is None else weight * self._factors[:, None])
        self._exact = exact

    def choice(self, clip: Clip, limit: float) -> Choice:
        scale = half(limit / LEVELS)
        lost = round_input(self._rows, scale) @ self._rounded
        lost -= self._exact
        size = float(np.linalg.norm(self._exact)) or 1.0
        return Choice(scale, clip, self.alpha, self._factors, float(np.linalg.norm(lost)) / size)

    def coarse(self) -> Iterator[tuple[Clip, float]]:
        yield "max", self._peak
        part = self._rows.ravel()[:: max(1, self._rows.size // 50_000)]
        candidates = [self._peak * share for share in np.linspace(0.15, 0.95, 17)]
        errors = [float(((round_input(part, half(limit / LEVELS)) - part) ** 2).sum()) for limit in candidates]
        yield "mse", candidates[int(np.argmin(errors))]

    def fine(self) -> Iterator[tuple[Clip, float]]:
        sizes = np.abs(self._rows).ravel()
        positions = {clip: int(share * (sizes.size - 1)) for clip, share in _PERCENTILES.items()}
        ordered = np.partition(sizes, list(positions.values()))
        for clip, position in positions.items():
            yield clip, max(float(ordered[position]), 1e-6)


def half(scale: float) -> float:
    """Round a scale to what half precision holds: the int8 graph keeps its scales in fp16."""
    return float(np.float16(max(scale, _TINY)))


def round_input(rows: Matrix, scale: float) -> Matrix:
    """Return what int8 leaves of an input."""
    return np.asarray(np.clip(np.rint(rows / np.float32(scale)), -LEVELS - 1, LEVELS) * np.float32(scale), np.float32)


def weight_scales(weight: Matrix) -> Matrix:
    """Return one scale per output channel ``[N]`` for a weight ``[K, N]``, each exact in half precision.

    Rounded up, so that the largest weight is never cut.
    """
    exact = np.maximum(np.abs(weight).max(axis=0) / LEVELS, _TINY)
    near = exact.astype(np.float16)
    return np.asarray(np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near), np.float32)


def weight_levels(weight: Matrix, scales: Matrix) -> NDArray[np.int8]:
    """Return the int8 weight."""
    return np.asarray(np.clip(np.rint(weight / scales), -LEVELS, LEVELS), np.int8)


def round_weight(weight: Matrix) -> Matrix:
    """Return what int8 leaves of a weight."""
    scales = weight_scales(weight)
    return weight_levels(weight, scales).astype(np.float32) * scales


def _factors(peak: Matrix, weight: Matrix, alpha: float) -> Matrix:
    reach = np.maximum(peak, 1e-5) ** alpha
    factors = reach / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - alpha)
    factors /= np.exp(np.log(factors).mean())  # the mean is the scales' business; half precision likes factors near one
    return np.asarray(np.clip(factors, 1 / 64, 64), np.float32)
