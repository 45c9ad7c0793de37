"""Counting by prompts, RemoteCount's protocol: the number in a caption replaced by one to ten, the best text counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from overflight.station.evaluate.measures import Measure, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.station.evaluate.embedding import Embeddings

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CAPTION = "a photo of {number} {thing}"
_NUMBER = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)


def variants(caption: str) -> tuple[tuple[str, ...], int] | None:
    """Return ten captions with one to ten in the place of the first number, and the number it had; None without one."""
    found = _NUMBER.search(caption)
    if found is None:
        return None
    texts = tuple(caption[: found.start()] + word + caption[found.end() :] for word in WORDS)
    return texts, WORDS.index(found[1].lower()) + 1


def count_captions(counts: Sequence[int], thing: str) -> list[str]:
    """Return a caption for each count from one to ten."""
    return [CAPTION.format(number=WORDS[count - 1], thing=thing) for count in counts]


def counting(
    pictures: NDArray[np.float32], captions: Sequence[str], embeddings: Embeddings
) -> tuple[dict[str, Measure], NDArray[np.int64]]:
    """Return accuracy, within one, and the confusion counts ``[true, predicted]`` of ten numbers."""
    truth, guess = [], []
    for picture, caption in zip(pictures, captions, strict=True):
        made = variants(caption)
        if made is None:
            continue
        truth.append(made[1])
        guess.append(int((embeddings.texts(made[0]) @ picture).argmax()) + 1)
    right, wanted = np.array(guess), np.array(truth)
    table = np.zeros((10, 10), np.int64)
    np.add.at(table, (wanted - 1, right - 1), 1)
    often = np.bincount(wanted, minlength=11).argmax()
    return {
        "accuracy": share(right == wanted),
        "within one": share(np.abs(right - wanted) <= 1),
        "always the commonest number": share(wanted == often),
    }, table
