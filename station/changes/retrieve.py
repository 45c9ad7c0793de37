"""Finding changes by text: which tiles changed from one thing to another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_FORMS: tuple[tuple[re.Pattern[str], tuple[str, str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), groups)
    for pattern, groups in (
        (r"(?P<before>.+?)(?:变成|变为|改为|改成|变化为)了?(?P<after>.+)", ("before", "after")),
        (r"(?P<before>.+?)(?:上|中)(?:的)?(?:新建|新增|新)的?(?P<after>.+)", ("before", "after")),
        (r"(?:新建|新增|新)的?(?P<after>.+)", ("", "after")),
        (r"(?P<after>.+?)(?:出现|增加)了?", ("", "after")),
        (r"(?P<before>.+?)(?:消失|减少|被拆除|被清除)了?", ("before", "")),
        (r"new (?P<after>.+?) (?:on|in|instead of|where there was) (?P<before>.+)", ("before", "after")),
        (
            r"(?P<before>.+?) (?:became|turned into|replaced by|changed to|gave way to) (?P<after>.+)",
            ("before", "after"),
        ),
        (r"(?:new|appeared|added) (?P<after>.+)", ("", "after")),
        (r"(?P<after>.+?) (?:appeared|were built|was built|built)", ("", "after")),
        (r"(?:lost|removed|demolished|cleared|fewer) (?P<before>.+)", ("before", "")),
        (r"(?P<before>.+?) (?:disappeared|was removed|were removed|demolished|cleared|lost)", ("before", "")),
    )
)


@dataclass(frozen=True)
class ChangeQuery:
    """What was there before and after; an empty text says nothing about that date."""

    before: str
    after: str

    @classmethod
    def parse(cls, text: str) -> ChangeQuery:
        """Read "new houses on bare soil", "forest became road", "demolished houses"; other texts are the later date."""
        plain = " ".join(text.split()).rstrip(".?!")
        for pattern, (before, after) in _FORMS:
            if found := pattern.fullmatch(plain):
                parts = found.groupdict()
                return cls(parts.get(before) or "", parts.get(after) or "")
        return cls("", plain)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to embed, in the order that ``rank`` takes their vectors."""
        return tuple(text for text in (self.before, self.after) if text)


def rank(
    query: ChangeQuery,
    vectors: NDArray[np.float32],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return how well each pair of unit embeddings ``[T, D]`` fits the query, ``[T]``; ``vectors`` embed its texts.

    The later text must fit the later date better than the earlier one, and the earlier text the other way round.
    """
    gain = (after - before).astype(np.float64)
    score = np.zeros(len(before))
    rows = iter(vectors)
    if query.before:
        score -= gain @ next(rows)
    if query.after:
        score += gain @ next(rows)
    return score


def best_tiles(
    query: ChangeQuery,
    embed_texts: Callable[[Sequence[str]], NDArray[np.float32]],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    most: int = 10,
) -> list[tuple[int, float]]:
    """Return the tiles that fit best, with their scores, best first."""
    scores = rank(query, embed_texts(query.texts), before, after)
    return [(int(row), round(float(scores[row]), 4)) for row in np.argsort(-scores, kind="stable")[:most]]
