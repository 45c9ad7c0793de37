"""Deciding: which labels one frame shows, or that it shows none of them. The only decision rule of the project."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.decisions.match import Match

    Floats = NDArray[np.float32]

OFF = 0.8  # a label that has begun ends below this share of its threshold, so that it does not flicker on it
LEAST_SCORE = 0.01  # of any label of a sigmoid tower whose bank states no threshold; not fitted, see docs/labels.md


@dataclass(frozen=True, slots=True)
class Decision:
    """What one frame was decided to show.

    ``label`` is the best label present, None for "unknown"; ``present`` maps every label that is shown to its score,
    ``still`` those that would be if they had begun before. ``groups`` maps the bank's grouped labels to their group.
    """

    label: str | None
    present: dict[str, float]
    still: dict[str, float]
    groups: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Decider:
    """A bank's rules laid out for deciding.

    A label is present when its share (inside an exclusive group) or else its score reaches its threshold, no background
    label has a higher logit, and, in an exclusive group, no other label of the group has. A label without a threshold
    takes the bank's; every label of an exclusive group needs the bank's as a score too. If the bank has none either,
    the label is present only as the best of all, at a score of ``LEAST_SCORE`` or more. ``margin`` is the lead in score
    over the second best label that labels without a threshold of their own need.
    """

    def __init__(self, bank: LabelBank, margin: float = 0.0) -> None:
        header = bank.header
        labels = header.labels
        self._names = [label.text for label in labels]
        self._background = np.flatnonzero([label.background for label in labels])
        self._groups = {label.text: label.group for label in labels if label.group}
        groups = np.array([label.group or "" for label in labels])
        self._exclusive = [np.flatnonzero(groups == name) for name in header.exclusive]
        own = np.array([np.nan if one.threshold is None else one.threshold for one in labels], np.float32)
        self._unset = np.isnan(own)
        self._only_best = header.threshold is None
        sigmoid = header.activation == "sigmoid"
        common = np.float32(header.threshold if header.threshold is not None else LEAST_SCORE if sigmoid else 0.0)
        shared = np.isin(groups, header.exclusive) if sigmoid else np.zeros(len(labels), np.bool_)
        # A share says which of the group, not whether any: noise has shares too. So a shared label needs a score.
        least_scores = np.where(shared, common, np.float32(0))
        thresholds = np.where(self._unset, np.where(shared, np.float32(0), common), own)
        self._begin = (thresholds, least_scores)
        self._stay = (thresholds * np.float32(OFF), least_scores * np.float32(OFF))
        self._shares_scores = bool(shared.any())
        self._margin = margin

    def decide(self, match: Match) -> Decision:
        """Decide which labels the frame shows."""
        candidates, judged = self._candidates(match), _judged(match)
        present = candidates & self._enough(match, judged, self._begin)
        rows = np.flatnonzero(present)
        label = self._names[rows[np.argmax(match.logits[rows])]] if len(rows) else None
        still = self._named(candidates & self._enough(match, judged, self._stay), match)
        return Decision(label, self._named(present, match), still, self._groups)

    def present(self, match: Match) -> NDArray[np.bool_]:
        """Return which rows of the bank are present, ``[K]``."""
        rows: NDArray[np.bool_] = self._candidates(match) & self._enough(match, _judged(match), self._begin)
        return rows

    def possible(self, matches: Match) -> NDArray[np.bool_]:
        """Return which of many answers ``[N, K]`` can show a label, ``[N]``: ``decide`` finds nothing in the others."""
        enough = self._enough(matches, _judged(matches), self._stay)
        enough[:, self._background] = False
        return np.asarray(enough.any(axis=1), np.bool_)

    def _enough(self, match: Match, judged: Floats, needs: tuple[Floats, Floats]) -> NDArray[np.bool_]:
        """Whether each label reaches what it needs: a share or score, and a score."""
        thresholds, least_scores = needs
        enough: NDArray[np.bool_] = judged >= thresholds
        if self._shares_scores:
            enough &= match.scores >= least_scores
        return enough

    def _candidates(self, match: Match) -> NDArray[np.bool_]:
        beaten = match.logits[self._background].max() if len(self._background) else -np.inf
        candidates: NDArray[np.bool_] = match.logits > beaten
        for rows in self._exclusive:
            winner = rows[np.argmax(match.logits[rows])]
            kept = candidates[winner]
            candidates[rows] = False
            candidates[winner] = kept
        if self._only_best or self._margin:
            candidates &= ~self._held_back(match)
        return candidates

    def _held_back(self, match: Match) -> NDArray[np.bool_]:
        """Which labels without a threshold of their own are out: all without a lead, else all but the best."""
        best = int(np.argmax(match.logits))
        held: NDArray[np.bool_] = self._unset.copy()
        if self._leads(match.scores, best):
            held[best] = False
            held &= self._only_best
        return held

    def _leads(self, scores: NDArray[np.float32], best: int) -> bool:
        if not self._margin or len(scores) < 2:
            return True
        return float(scores[best] - np.partition(scores, -2)[-2]) >= self._margin

    def _named(self, mask: NDArray[np.bool_], match: Match) -> dict[str, float]:
        return {self._names[row]: float(match.scores[row]) for row in np.flatnonzero(mask)}


def _judged(match: Match) -> Floats:
    """Return the share of each label, or its score where it excludes no other."""
    return np.where(np.isnan(match.shares), match.scores, match.shares)
