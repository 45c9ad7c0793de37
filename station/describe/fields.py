"""Fields from a label bank: each exclusive group answers one question, or abstains."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast, get_args

import msgspec
import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.station.describe.record import Alternative, Dimension, Field, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARGIN = 0.1  # lead in share over the second label, without which a group abstains
MOST_ALTERNATIVES = 4
SINGLE = "_single"  # an exclusive group of one label, for labels that exclude no other


class Judged(NamedTuple):
    """A group's answer to one embedding: ``label`` None where it abstains, ``reason`` why."""

    label: str | None
    score: float
    margin: float
    reason: Reason
    ranked: tuple[Alternative, ...]


class Group:
    """One exclusive group of a bank with the bank's background, decided by the rule that flights use."""

    def __init__(self, bank: LabelBank, rows: NDArray[np.int64], margin: float = MARGIN) -> None:
        header = bank.header
        backgrounds = np.flatnonzero([label.background for label in header.labels])
        kept = np.concatenate([rows, backgrounds])
        labels = tuple(
            msgspec.structs.replace(header.labels[row], group=None if header.labels[row].background else SINGLE)
            for row in kept
        )
        self.names = tuple(header.labels[row].text for row in rows)
        self._sigmoid = header.activation == "sigmoid"
        part = LabelBank(
            msgspec.structs.replace(header, labels=labels, exclusive=(SINGLE,)), bank.vectors[kept], raw=b""
        )
        self._matcher, self._decider, self._margin = Matcher(part), Decider(part), margin
        self._count = len(rows)

    def judge(self, embedding: NDArray[np.float32]) -> Judged:
        """Answer for one unit embedding ``[D]``."""
        match = self._matcher.match(embedding)
        shares, scores = match.shares[: self._count], match.scores[: self._count]
        order = np.argsort(-match.logits[: self._count])
        best = int(order[0])
        margin = float(shares[best] - shares[order[1]]) if len(order) > 1 else 1.0
        ranked = tuple(
            Alternative(self.names[row], _round(scores[row]) if self._sigmoid else None, _round(shares[row]))
            for row in order
        )
        reason = self._reason(float(match.logits[best]), match.logits[self._count :], margin)
        if not reason and self._decider.decide(match).label != self.names[best]:
            reason = "score"
        score = float(scores[best] if self._sigmoid else shares[best])
        return Judged(None if reason else self.names[best], _round(score), _round(margin), reason, ranked)

    def _reason(self, best: float, backgrounds: NDArray[np.float32], margin: float) -> Reason:
        if len(backgrounds) and float(backgrounds.max()) >= best:
            return "background"
        return "margin" if margin < self._margin else ""


def groups_of(bank: LabelBank, margin: float = MARGIN) -> dict[str, Group]:
    """Return the bank's exclusive groups by name; a bank without any is one group, named after it."""
    header = bank.header
    names = np.array(["" if label.background else label.group or "" for label in header.labels])
    shown = np.array([not label.background for label in header.labels])
    if not header.exclusive and (len(set(names[shown])) == 1):
        return {header.name: Group(bank, np.flatnonzero(shown), margin)}
    return {name: Group(bank, np.flatnonzero(names == name), margin) for name in header.exclusive}


def independent_labels(bank: LabelBank, margin: float = MARGIN) -> list[tuple[str, Group]]:
    """Return the labels that exclude no other, each with its group's name and as a group of its own."""
    header = bank.header
    if not header.exclusive and len({label.group for label in header.labels if not label.background}) == 1:
        return []
    return [
        (label.group or header.name, Group(bank, np.array([row]), margin))
        for row, label in enumerate(header.labels)
        if not label.background and (label.group or "") not in header.exclusive
    ]


def dimension_of(name: str) -> Dimension:
    """Return the dimension that a group's name stands for."""
    known = {"objects": "cover", "time": "season"}
    name = known.get(name, name)
    return cast("Dimension", name) if name in get_args(Dimension) else "other"


def group_field(name: str, judged: Judged, hashes: tuple[str, str, str]) -> Field:
    """Make the field of an exclusive group."""
    model, bank, source = hashes
    others = judged.ranked[: MOST_ALTERNATIVES + 1]
    return Field(
        dimension=dimension_of(name),
        name=name,
        value=judged.label,
        score=judged.score,
        margin=judged.margin,
        alternatives=others[1:] if judged.label is not None else others[:MOST_ALTERNATIVES],
        abstained=judged.label is None,
        reason=judged.reason,
        unit="score",
        model=model,
        bank=bank,
        source=source,
    )


def single_field(group: str, judged: Judged, hashes: tuple[str, str, str], threshold: float | None) -> Field:
    """Make the field of a label that excludes no other, present or abstained; ``margin`` is its lead over the limit."""
    field = group_field(group, judged, hashes)
    margin = None if threshold is None else _round(judged.score - threshold)
    return msgspec.structs.replace(
        field, name=f"{group}: {judged.ranked[0].value}", margin=margin, alternatives=judged.ranked[: field.abstained]
    )


def _round(value: float | np.floating) -> float:
    return round(float(value), 4)
