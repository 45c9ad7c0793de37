"""One catalogue for both languages: texts by key with places for values, and the Chinese names of shipped labels."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal, get_args

import msgspec

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


def say(key: str, language: Language, /, **values: object) -> str:
    """Return a text of the catalogue with its values set in. An unknown key is a mistake of the program."""
    return _catalogue()[key][language].format(**values)


def label_name(text: str | None, language: Language) -> str:
    """Return a label in a language: the catalogue's name, the dictionary's, or the label as it was written."""
    if text is None:
        return say("unknown", language)
    if language == "en":
        return text
    return _names().get(text.casefold(), text)


@cache
def _catalogue() -> dict[str, dict[str, str]]:
    raw = (resources.files("overflight.station.words") / "words.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, dict[str, str]])


@cache
def _names() -> dict[str, str]:
    """Return Chinese names by English text; the shipped labels' own come before the dictionary's."""
    names: dict[str, str] = {}
    for folder, file in (("search", "dictionary.tsv"), ("words", "labels.tsv")):
        text = (resources.files(f"overflight.station.{folder}") / file).read_text(encoding="utf-8")
        pairs = (line.split("\t")[:2] for line in text.splitlines() if line and not line.startswith("#"))
        for chinese, english in pairs:
            names.setdefault(english.casefold(), chinese)
    return names
