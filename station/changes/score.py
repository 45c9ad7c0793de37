"""The change score of tiles, and what season and light are allowed to do to it.

Background pairs show one ground without a change, at two dates. The directions in which their embeddings differ are
season and light; they are removed from every difference. What is left of the background pairs themselves, each held out
in turn, sets the limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIRECTIONS = 4  # of season and light that are removed
FALSE_ALARM = 0.01  # share of background tiles above the upper limit
LOW_SHARE = 0.1  # share of background tiles above the lower limit, which tiles next to a change need
_FEWEST_TILES = 8


@dataclass(frozen=True)
class Background:
    """What season and light do: unit ``directions`` ``[R, D]``, and limits of the score.

    A tile above ``high`` is changed, and so is one above ``low`` that touches it. ``origin`` says where the background
    is from: given pairs, the pair's own tiles in other light, or the pair itself. ``tiles`` counts those that set the
    limits.
    """

    directions: Vectors
    high: float
    low: float
    origin: Literal["pairs", "light", "pair"]
    tiles: int

    def scores(self, before: Vectors, after: Vectors) -> NDArray[np.float64]:
        """Return the score of each tile ``[T]``: half the squared length of the difference without the directions.

        Without directions it is 1 less the cosine.
        """
        return _scores(after - before, self.directions)


def fit_background(
    pairs: Sequence[tuple[Vectors, Vectors]],
    *,
    origin: Literal["pairs", "light"] = "pairs",
    false_alarm: float = FALSE_ALARM,
) -> Background:
    """Fit directions and limits to pairs of embeddings ``[T, D]`` without a change.

    Every pair is held out once: its score comes from the directions of the others. Raises UsageError for too few tiles.
    """
    differences = [after - before for before, after in pairs]
    total = sum(map(len, differences))
    if total < _FEWEST_TILES:
        found = f"{total} tiles without a change, at least {_FEWEST_TILES} are needed"
        if origin == "light":
            raise UsageError(f"the pair is too small to compare: {found}; give larger pictures, or --background pairs")
        raise UsageError(f"--background: {found}; add pairs")
    if len(differences) == 1:  # one pair is held out half by half
        differences = [differences[0][0::2], differences[0][1::2]]
    held_out = []
    for number, difference in enumerate(differences):
        others = np.concatenate([one for place, one in enumerate(differences) if place != number])
        held_out.append(_scores(difference, directions_of(others)))
    scores = np.concatenate(held_out)
    high, low = (float(np.quantile(scores, 1 - share)) for share in (false_alarm, max(LOW_SHARE, false_alarm)))
    return Background(directions_of(np.concatenate(differences)), high, low, origin, total)


def directions_of(differences: Vectors, count: int = DIRECTIONS) -> Vectors:
    """Return the unit directions in which differences ``[N, D]`` are largest: at most N/4, and at most D/8."""
    _, _, directions = np.linalg.svd(differences, full_matrices=False)
    return np.asarray(directions[: min(count, len(differences) // 4, differences.shape[1] // 8)], np.float32)


def hysteresis(
    scores: NDArray[np.float64], cells: Sequence[tuple[int, int]], high: float, low: float
) -> NDArray[np.bool_]:
    """Return which tiles are changed: above ``high``, or above ``low`` and joined to one that is, by edge or corner."""
    place = {cell: number for number, cell in enumerate(cells)}
    changed = scores > high
    waiting: list[int] = np.flatnonzero(changed).tolist()
    while waiting:
        row, column = cells[waiting.pop()]
        for near in ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            number = place.get(near)
            if number is not None and not changed[number] and scores[number] > low:
                changed[number] = True
                waiting.append(number)
    return changed


def other_light(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return a tile in other light: darker, brighter, warmer, colder, veiled, softer, and one pixel aside."""
    cv2 = opencv()
    values = pixels.astype(np.float32)
    warm, cold = np.array([1.12, 1.0, 0.88], np.float32), np.array([0.88, 1.0, 1.12], np.float32)
    made = [255 * (values / 255) ** 1.5, 255 * (values / 255) ** 0.67, values * warm, values * cold, values * 0.75 + 45]
    found = [np.clip(one, 0, 255).astype(np.uint8) for one in made]
    return [*found, cv2.GaussianBlur(pixels, (0, 0), 0.8), np.roll(pixels, (1, 1), (0, 1))]


def _scores(differences: Vectors, directions: Vectors) -> NDArray[np.float64]:
    left = differences - (differences @ directions.T) @ directions if len(directions) else differences
    return np.asarray((left.astype(np.float64) ** 2).sum(axis=1) / 2)
