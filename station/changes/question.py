"""Questions about two dates with given answers; "cannot tell" is an answer too.

A question is answered from how the fit of its thing to the tiles changed, with an interval over the tiles. It does not
count: "did the number of buildings grow?" is answered as "do more tiles look like buildings?", and the answer says so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]

LEAST_GAIN = 0.02  # of the mean cosine: smaller differences come from light alone
_DRAWS = 500
_GROW = "grow|grown|increase|increased|rise|appear|appeared|expand|expanded|more|built"
_SHRINK = "shrink|shrunk|decrease|decreased|fall|disappear|disappeared|decline|declined|fewer|less|lost|removed|cleared"
_MEASURE = re.compile(r"^(?:the )?(?:number|amount|area|share|extent|size) of (?:the )?", re.IGNORECASE)
_DID = re.compile(rf"(?:did|has|have|were|was) (?P<thing>.+?) (?:been )?(?P<verb>{_GROW}|{_SHRINK})", re.IGNORECASE)
_MORE = re.compile(r"(?:are|is) there (?P<verb>more|new|fewer|less) (?P<thing>.+)", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True):
    """The answer with what is behind it: the gain in mean cosine and its 95 % interval over the tiles.

    ``read_as`` says how the question was understood.
    """

    question: str
    answer: str
    read_as: str
    gain: float
    low: float
    high: float


def understand(question: str) -> tuple[str, Literal["grow", "shrink"]]:
    """Return the thing and the direction that a question asks about. Raises UsageError for other questions."""
    plain = " ".join(question.split()).rstrip("?.! ")
    found = _DID.fullmatch(plain) or _MORE.fullmatch(plain)
    if found is None:
        raise UsageError(f"--ask {question!r}: expected a question such as 'did the number of buildings grow?'")
    thing = _MEASURE.sub("", found["thing"].strip())
    grows = re.fullmatch(f"{_GROW}|new", found["verb"], re.IGNORECASE) is not None
    return thing.removeprefix("the "), "grow" if grows else "shrink"


def answer(question: str, embed_texts: EmbedTexts, before: NDArray[np.float32], after: NDArray[np.float32]) -> Answer:
    """Answer yes, no or cannot tell from the unit embeddings ``[T, D]`` of both dates."""
    thing, direction = understand(question)
    vector = embed_texts([thing])[0]
    sign = 1.0 if direction == "grow" else -1.0
    gains = sign * ((after - before).astype(np.float64) @ vector)
    mean, low, high = _interval(gains)
    if low > LEAST_GAIN:
        said = "yes"
    elif high < -LEAST_GAIN or (low > -LEAST_GAIN and high < LEAST_GAIN):
        said = "no"
    else:
        said = "cannot tell"
    verb = "more" if direction == "grow" else "less"
    return Answer(question, said, f"do the tiles look {verb} like {thing!r} than before?", mean, low, high)


def choose(
    question: str,
    answers: Sequence[str],
    embed_texts: EmbedTexts,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> Answer:
    """Choose among given answers, each a text of what the later date shows, or "cannot tell".

    The answer whose fit gained most wins; it must lead the second in the same tiles.
    """
    if len(set(answers)) < 2:
        raise UsageError(f"--answer: {len(set(answers))} answers, give two or more")
    gains = ((after - before).astype(np.float64) @ embed_texts(list(answers)).T).T
    order = np.argsort(-gains.mean(axis=1))
    mean, low, high = _interval(gains[order[0]] - gains[order[1]])
    wins = low > 0 and float(gains[order[0]].mean()) > LEAST_GAIN
    return Answer(
        question,
        answers[order[0]] if wins else "cannot tell",
        f"which of {', '.join(answers)} do the tiles look more like than before?",
        mean,
        low,
        high,
    )


def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval, by drawing tiles."""
    random = np.random.default_rng(0)
    drawn = values[random.integers(0, len(values), (_DRAWS, len(values)))].mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return round(float(values.mean()), 4), round(float(low), 4), round(float(high), 4)
