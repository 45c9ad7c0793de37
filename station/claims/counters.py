"""Counter-sentences: what a picture would show if a claim were wrong, made by rules of words."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from overflight.export.tables import read_table

Rule = Literal["antonym", "other thing", "swapped attribute", "negation", "given"]
MOST = 24


class Counter(msgspec.Struct, frozen=True):
    """A sentence that cannot be true together with the claim, and the rule that made it."""

    text: str
    rule: Rule


def counter_sentences(claim: str) -> list[Counter]:
    """Make the counter-sentences of a claim, each once; none where no word of the claim has a rule."""
    found: dict[str, Counter] = {}
    for counter in (*_antonyms(claim), *_others(claim), *_swapped(claim)):
        if counter.text.casefold() != claim.casefold():
            found.setdefault(counter.text.casefold(), counter)
    return list(found.values())[:MOST]


def negated(claim: str) -> str | None:
    """Return what a claim of absence denies ("there is no bridge": "there is a bridge"), None for other claims.

    A text tower reads "no bridge" nearly as "bridge", so absence is never asked of it directly.
    """
    found = re.fullmatch(
        r"(?:there (?:is|are) )?(?:no|not any|without(?: any)?) (.+?)\.?", claim.strip(), re.IGNORECASE
    )
    return None if found is None else found[1]


def _antonyms(claim: str) -> list[Counter]:
    pairs = [(a, b) for pair in _rules()["antonyms"] for a, b in (pair, pair[::-1])]
    return [Counter(text, "antonym") for a, b in pairs if (text := _replaced(claim, a, b)) is not None]


def _others(claim: str) -> list[Counter]:
    """Put the other things of its class in the place of each thing that the claim names, longest names first."""
    found = []
    for things in _rules()["classes"].values():
        named = [thing for thing in sorted(things, key=len, reverse=True) if _replaced(claim, thing, "") is not None]
        for thing in named[:1]:
            others = [other for other in things if other not in named]
            found += [Counter(text, "other thing") for other in others if (text := _replaced(claim, thing, other))]
    return found


def _swapped(claim: str) -> list[Counter]:
    """Swap the attributes of two things: "white roofs and green fields" becomes "green roofs and white fields"."""
    found = re.search(r"\b(\w+) (\w+) (and|next to|near|beside|around|on) (?:a |an |the )?(\w+) (\w+)\b", claim)
    if found is None or found[1] == found[4] or {found[1], found[4]} & {"a", "an", "the", "some", "many", "is", "are"}:
        return []
    text = f"{found[4]} {found[2]} {found[3]} {found[1]} {found[5]}"
    return [Counter(claim[: found.start()] + text + claim[found.end() :], "swapped attribute")]


def _replaced(claim: str, word: str, other: str) -> str | None:
    """Replace a word with its plural and article; None where the claim does not have it."""
    pattern = re.compile(rf"\b{re.escape(word)}(s|es)?\b", re.IGNORECASE)
    if pattern.search(claim) is None:
        return None
    plural = other if other.endswith("s") else f"{other}s"
    text = pattern.sub(lambda match: plural if match[1] else other, claim)
    return re.sub(r"\b(a|an) (?=[aeiou])", "an ", re.sub(r"\ban (?=[^aeiou\W])", "a ", text))


@cache
def _rules() -> dict[str, Any]:
    return read_table(Path(__file__).with_name("rules.toml"))
