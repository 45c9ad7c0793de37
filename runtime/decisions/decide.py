"""Deciding: which labels one frame shows, or that it shows none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.decisions.match import Match

OFF = 0.8  # a label that has begun ends below this share of its threshold, so that it does not flicker on it


@dataclass(frozen=True, slots=True)
class Decision:
    """What one frame was judged to show.

    ``label`` is the best label present, None for "unknown"; ``present`` maps every label that is shown to its score,
    ``still`` those that would be if they had begun before.
    """

    label: str | None
    present: dict[str, float]
    still: dict[str, float]


class Decider:
    """A bank's rules laid out for deciding.

    A label with a threshold is present when its share (inside an exclusive group) or else its sigmoid score reaches it;
    a label without one when it is the best of all. Nothing is present that a background label beats, and in an
    exclusive group only its best. ``margin`` is the least lead in score that the best label needs over the next of
    another name when it has no threshold.
    """

    def __init__(self, bank: LabelBank, margin: float = 0.0) -> None:
        labels = bank.header.labels
        self._names = [label.text for label in labels]
        self._background = np.flatnonzero([label.background for label in labels])
        self._thresholds = np.array([np.nan if x.threshold is None else x.threshold for x in labels], np.float32)
        groups = np.array([label.group or "" for label in labels])
        self._exclusive = [np.flatnonzero(groups == name) for name in bank.header.exclusive]
        self._margin = margin

    def decide(self, match: Match) -> Decision:
        """Judge every label's answer."""
        judged = np.where(np.isnan(match.shares), match.scores, match.shares)
        candidates = self._candidates(match)
        best = int(np.argmax(match.cosines))
        leads = bool(candidates[best]) and np.isnan(self._thresholds[best]) and self._leads(match.scores, best)
        with np.errstate(invalid="ignore"):  # NaN: a label without a threshold
            present = candidates & (judged >= self._thresholds)
            still = candidates & (judged >= self._thresholds * np.float32(OFF))
        present[best] |= leads
        still[best] |= leads
        rows = np.flatnonzero(present)
        label = self._names[rows[np.argmax(match.cosines[rows])]] if len(rows) else None
        return Decision(label, self._named(present, match), self._named(still, match))

    def _candidates(self, match: Match) -> NDArray[np.bool_]:
        beaten = match.cosines[self._background].max() if len(self._background) else -np.inf
        candidates: NDArray[np.bool_] = match.cosines > beaten
        for rows in self._exclusive:
            winner = rows[np.argmax(match.cosines[rows])]
            kept = candidates[winner]
            candidates[rows] = False
            candidates[winner] = kept
        return candidates

    def _leads(self, scores: NDArray[np.float32], best: int) -> bool:
        if not self._margin or len(scores) < 2:
            return True
        return float(scores[best] - np.partition(scores, -2)[-2]) >= self._margin

    def _named(self, mask: NDArray[np.bool_], match: Match) -> dict[str, float]:
        return {self._names[row]: float(match.scores[row]) for row in np.flatnonzero(mask)}
