"""Decoding TOML that came from outside: whatever is wrong with it is one kind of error, found in bounded time."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any

MOST_PARTS = 16
MOST_WORD = 1_000
_TEXT = r"""\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'"""
_TOKEN = re.compile(
    rf"""
    \#[^\n]* | \"{{3}}(?:\\.|[^\\])*?(?:\"{{3,5}}|\\?\Z) | '{{3}}.*?(?:'{{3,5}}|\Z)   # comments and long texts
    | (?P<long>(?:(?:[A-Za-z0-9_-]+|{_TEXT})[ \t]*\.[ \t]*){{{MOST_PARTS}}})
    | {_TEXT} | (?P<word>[A-Za-z0-9_-]+)
    """,
    re.DOTALL | re.VERBOSE,
)


class TomlError(ValueError):
    """Not TOML, or more than is read of it; the text ends with the place where it is known."""


def decode_toml(text: str) -> dict[str, Any]:
    """Decode a TOML document. Raises TomlError.

    tomllib needs the square of the parts of a dotted key in time and memory, so those keys are refused before it sees
    them. Numbers of more than 4,300 digits are refused with them: Python converts them neither from nor to decimals.
    """
    for token in _TOKEN.finditer(text):
        if token["long"] is not None:
            raise TomlError(f"a key of more than {MOST_PARTS} parts {_place(text, token.start())}")
        if token["word"] is not None and len(token["word"]) > MOST_WORD:
            most = f"at most {MOST_WORD:,} characters outside quotes"
            raise TomlError(
                f"{len(token['word']):,} characters in one word, expected {most} {_place(text, token.start())}"
            )
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values: dict[str, Any] = toml.loads(text)
    except RecursionError as error:
        raise TomlError("nested too deeply") from error
    except ValueError as error:  # also TOMLDecodeError
        raise TomlError(str(error)) from error
    return values


def _place(text: str, position: int) -> str:
    return f"(at line {text.count(chr(10), 0, position) + 1}, column {position - text.rfind(chr(10), 0, position)})"
