"""The lines of a TOML label file: tomllib keeps none, and a mistake without its line is hard to mend."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Places:
    """Where texts, keys and groups stand in a TOML source; ``line`` is that of the last text that was followed."""

    _TOKEN = re.compile(
        r"""
        \#[^\n]* | ^[ \t]*\[+\s*groups\b[^\n]*                    # a comment, a group's header
        | ^[ \t]*(?P<key>[\w-]+|"[^"\n]*"|'[^'\n]*')(?=\s*=)      # a key that begins a line
        | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3} | '{3}.*?'{3} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
        """,
        re.DOTALL | re.MULTILINE | re.VERBOSE,
    )

    _GROUP = re.compile(
        r"""^[ \t]*\[+[ \t]*groups[ \t]*\.[ \t]*("[^"\n]*"|'[^'\n]*'|[\w-]+)[ \t]*[.\]]""", re.MULTILINE
    )

    def __init__(self, source: str) -> None:
        self._keys: dict[str, list[int]] = defaultdict(list)
        self._lines: list[int] = []  # of each text, in the order written
        self._indices: dict[str, list[int]] = defaultdict(list)  # of each text, into _lines
        self._groups: dict[str, int] = {}
        self._next = 0
        self.line = 1
        line, position = 1, 0
        for token in self._TOKEN.finditer(source):
            line += source.count("\n", position, token.start())
            position = token.start()
            if token["key"]:
                self._keys[_unquote(token["key"])].append(line)
            elif token["text"]:
                self._indices[_unquote(token["text"])].append(len(self._lines))
                self._lines.append(line)
        line, position = 1, 0
        for header in self._GROUP.finditer(source):
            line += source.count("\n", position, header.start())
            position = header.start()
            self._groups.setdefault(_unquote(header[1]), line)

    def seek(self, line: int) -> None:
        """Stand at the first text on or after a line."""
        self.line = line
        self._next = bisect_left(self._lines, line)

    def follow(self, value: object) -> int:
        """Go past every text of a value, in the order written, and return the line where it begins."""
        lines = []
        for text in _texts(value):
            indices = self._indices.get(text, [])
            if (place := bisect_left(indices, self._next)) < len(indices):
                self._next = indices[place] + 1
                lines.append(self._lines[indices[place]])
        self.line = lines[-1] if lines else self.line
        return lines[0] if lines else self.line

    def key(self, key: str, after: int) -> int:
        """Return the line of a key that stands on or after a line."""
        lines = self._keys.get(key, [])
        place = bisect_left(lines, after)
        return lines[place] if place < len(lines) else max(after, 1)

    def group(self, name: str) -> int:
        """Return the line of ``[groups.NAME]``."""
        return self._groups.get(name) or self.key(name, 0)


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() | dict():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _texts(inner)


def _unquote(token: str) -> str:
    """Return what a quoted text says; escapes other than \\" and \\\\ are rare in labels and only cost the line."""
    for quote in ('"""', "'''", '"', "'"):
        if token.startswith(quote):
            inner = token[len(quote) : -len(quote)]
            return re.sub(r"\\([\"\\])", r"\1", inner) if quote[0] == '"' else inner
    return token
