"""Chinese queries: the field's terms turned into English, or refused where a word is not in the dictionary."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from overflight.runtime.errors import UsageError

_IGNORED = re.compile(
    r"[\s\u3000-\u303f\uff00-\uff65,.;:!?]"
    r"|正在|上面|里面|一(?:个|只|条|座|片|辆|艘|架|栋|群|些|排|堆|块|棵|名|位)|[的和与及在上里中有了着是被冒些个只辆艘架栋]"
)


def translate(text: str) -> str:
    """Translate a Chinese query term by term, longest terms first, keeping what is not Chinese.

    Raises UsageError that names the words without a translation: an English text tower would read them as nothing.
    """
    terms = _terms()
    longest = max(map(len, terms))
    words: list[str] = []
    unknown: list[str] = []
    position = 0
    while position < len(text):
        ends = (end for end in range(min(len(text), position + longest), position, -1) if text[position:end] in terms)
        end = next(ends, None)
        if end is not None:
            words.append(terms[text[position:end]])
            position = end
        elif ignored := _IGNORED.match(text, position):  # a term may begin like a particle: 中学, a school
            position = ignored.end()
        elif other := re.match(r"[^\u3000-\u303f\u3400-\u9fff\uff00-\uff65\s]+", text[position:]):
            words.append(other[0])
            position += len(other[0])
        else:
            unknown.append(text[position])
            position += 1
    if unknown or not words:
        raise UsageError(
            f"{text}: no translation for {''.join(unknown) or 'it'}; the text tower reads English: "
            "write the query in English, or use the terms of station/search/dictionary.tsv"
        )
    return " ".join(words)


@cache
def _terms() -> dict[str, str]:
    lines = (resources.files("overflight.station.search") / "dictionary.tsv").read_text(encoding="utf-8").splitlines()
    pairs = ((line.split("\t")[0], line.split("\t")[1]) for line in lines if line and not line.startswith("#"))
    return dict(pairs)
