"""Prompts: label texts set into templates, the field's published ones by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from overflight.runtime.errors import UsageError

_DIRECTORY = Path(__file__).parent / "templates"

DEFAULT = "aerial"
SLOT = "{}"


@dataclass(frozen=True)
class Templates:
    """Forms that a label's text is set into, each with one ``{}``, and the name they go by."""

    name: str
    forms: tuple[str, ...]

    def fill(self, text: str) -> tuple[str, ...]:
        """Set a text into every form; a sentence is its own prompt."""
        return (text,) if is_sentence(text) else tuple(form.replace(SLOT, text) for form in self.forms)


def template_names() -> tuple[str, ...]:
    """Return the names of the shipped sets."""
    return tuple(sorted(path.stem for path in _DIRECTORY.glob("*.txt")))


def read_templates(name: str) -> Templates:
    """Read a shipped set. Raises UsageError for another name."""
    if name not in template_names():
        raise UsageError(f"no templates named {name!r}; there are {', '.join(template_names())}")
    lines = (_DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return Templates(name, tuple(line for line in lines if line and not line.startswith("#")))


def is_sentence(text: str) -> bool:
    """Tell a sentence, which is its own prompt, from a name, which is set into templates.

    A sentence has three words or more and ends in ``.``, ``!`` or ``?``, or has six words or more, or says itself what
    kind of picture it is ("aerial view of a quarry").
    """
    words = len(text.split())
    pictured = re.search(r"\b(image|imagery|photo|photograph|picture|view) of\b", text.lower())
    return words >= 6 or (words >= 3 and text.endswith((".", "!", "?"))) or pictured is not None
