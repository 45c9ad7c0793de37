"""Which labels each frame of a flight showed, the best one and every other: decided again from the recorded scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Match
from overflight.runtime.errors import OverflightError
from overflight.runtime.flight.directory import BANKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.records import Observation

_NUMBERS = 4_000_000  # of one table of scores at a time


def present_rows(flight: Path, observations: Sequence[Observation]) -> dict[str, list[int]]:
    """Return for every label the rows in which it was present.

    An observation keeps its best labels with their scores, of which the flight's own bank says which were present. Of
    a frame with more labels than it keeps, the lesser ones are missing. Where the bank is not kept, only the best label
    of a frame is known. Frames that were answered "unknown" show nothing, whatever margin they were flown with.
    """
    rows: dict[str, list[int]] = {}
    for name in dict.fromkeys(seen.bank for seen in observations):
        own = [row for row, seen in enumerate(observations) if seen.bank == name and seen.label is not None]
        try:
            bank = LabelBank.load(flight / BANKS / f"{name}.safetensors")
        except (OverflightError, OSError):
            for row in own:
                rows.setdefault(observations[row].label or "", []).append(row)
            continue
        for row, label in _present(bank, own, observations):
            rows.setdefault(label, []).append(row)
    return {label: sorted(found) for label, found in rows.items()}


def _present(bank: LabelBank, rows: Sequence[int], observations: Sequence[Observation]) -> Iterator[tuple[int, str]]:
    decider, column = Decider(bank), {label.text: place for place, label in enumerate(bank.header.labels)}
    step = max(1, _NUMBERS // len(column))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        decisions = decider.decide_rows(_match(bank, column, [observations[row] for row in part]))
        for row, decision in zip(part, decisions, strict=True):
            best = observations[row].label
            yield from ((row, label) for label in dict.fromkeys((best, *decision.present)) if label is not None)


def _match(bank: LabelBank, column: dict[str, int], observations: Sequence[Observation]) -> Match:
    """Lay out what was recorded as the answers of a bank; a label that was not kept has no chance."""
    shape = len(observations), len(column)
    cosines, scores = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    logits, shares = np.full(shape, -np.inf, np.float32), np.full(shape, np.nan, np.float32)
    for row, seen in enumerate(observations):
        for score in seen.scores:
            if (at := column.get(score.label)) is None:
                continue
            cosines[row, at], scores[row, at] = score.cosine, score.score
            logits[row, at] = score.cosine * bank.scales[at] + bank.biases[at]
            if score.share is not None:
                shares[row, at] = score.share
    return Match(cosines, logits, scores, shares)
