"""Deciding: which labels one frame shows, or that it shows none of them. The only decision rule of the project."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        exclusive = [np.flatnonzero(groups == name) for name in header.exclusive]
        self._exclusive = [(rows, np.arange(len(rows))) for rows in exclusive]
        own = np.array([np.nan if one.threshold is None else one.threshold for one in labels], np.float32)
        self._unset = np.isnan(own)
        self._places = np.arange(len(labels))
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
        present, still = self._shown(match)
        rows = np.flatnonzero(present)
        label = self._names[rows[np.argmax(match.logits[rows])]] if len(rows) else None
        return Decision(label, self._named(present, match), self._named(still, match), self._groups)

    def decide_rows(self, matches: Match) -> Iterator[Decision]:
        """Yield what ``decide`` answers to each of many answers ``[N, K]``: the same rule on all of them at once."""
        present, still = self._shown(matches)
        best = np.where(present, matches.logits, -np.inf).argmax(axis=-1)
        begun, stays = self._named_rows(present, matches), self._named_rows(still, matches)
        names = np.array([*self._names, None], object)[np.where(present.any(axis=-1), best, len(self._names))]
        nothing = Decision(None, {}, {}, self._groups)
        for label, shown, stay in zip(names, begun, stays, strict=True):
            yield Decision(label, shown, stay, self._groups) if shown or stay else nothing

    def present(self, match: Match) -> NDArray[np.bool_]:
        """Return which rows of the bank are present, ``[K]``."""
        return self._shown(match)[0]

    def _shown(self, match: Match) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which labels are present, and which would be if they had begun before; ``[K]`` or ``[N, K]``."""
        candidates, judged = self._candidates(match), _judged(match)
        present = candidates & self._enough(match, judged, self._begin)
        return present, candidates & self._enough(match, judged, self._stay)

    def _enough(self, match: Match, judged: Floats, needs: tuple[Floats, Floats]) -> NDArray[np.bool_]:
        """Whether each label reaches what it needs: a share or score, and a score."""
        thresholds, least_scores = needs
        enough: NDArray[np.bool_] = judged >= thresholds
        if self._shares_scores:
            enough &= match.scores >= least_scores
        return enough

    def _candidates(self, match: Match) -> NDArray[np.bool_]:
        logits = match.logits
        beaten = logits[..., self._background].max(axis=-1, keepdims=True) if len(self._background) else -np.inf
        candidates: NDArray[np.bool_] = logits > beaten
        for rows, places in self._exclusive:
            candidates[..., rows] &= places == logits[..., rows].argmax(axis=-1)[..., None]
        if self._only_best or self._margin:
            candidates &= ~self._held_back(match)
        return candidates

    def _held_back(self, match: Match) -> NDArray[np.bool_]:
        """Which labels without a threshold of their own are out: all without a lead, else all but the best."""
        best = match.logits.argmax(axis=-1)[..., None]
        free = (self._places == best) | (not self._only_best)
        held: NDArray[np.bool_] = self._unset & ~(free & self._leads(match.scores, best))
        return held

    def _leads(self, scores: Floats, best: NDArray[np.intp]) -> NDArray[np.bool_] | bool:
        """Whether the best label leads by the margin, ``[1]`` or ``[N, 1]``."""
        if not self._margin or scores.shape[-1] < 2:
            return True
        second = np.partition(scores, -2, axis=-1)[..., -2:-1]
        lead = np.take_along_axis(scores, best, axis=-1) - second
        enough: NDArray[np.bool_] = lead.astype(np.float64) >= self._margin
        return enough

    def _named(self, mask: NDArray[np.bool_], match: Match) -> dict[str, float]:
        return {self._names[row]: float(match.scores[row]) for row in np.flatnonzero(mask)}

    def _named_rows(self, mask: NDArray[np.bool_], matches: Match) -> Iterator[dict[str, float]]:
        """Yield what ``_named`` returns for each row."""
        _, columns = at = np.nonzero(mask)
        pairs = zip(map(self._names.__getitem__, columns.tolist()), matches.scores[at].tolist(), strict=True)
        for count in np.count_nonzero(mask, axis=-1).tolist():
            yield dict(islice(pairs, count)) if count else {}


def _judged(match: Match) -> Floats:
    """Return the share of each label, or its score where it excludes no other."""
    return np.where(np.isnan(match.shares), match.scores, match.shares)
