"""Labels that are too coarse: words whose pictures differ so much that one vector stands for none of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overflight.export.tables import read_table

if TYPE_CHECKING:
    from overflight.export.label_file import LabelFile

_TABLE = Path(__file__).parent / "label_files" / "coarse.toml"
_ARTICLES = ("a ", "an ", "the ")


def finer_forms(text: str) -> tuple[str, ...]:
    """Return finer labels for a text that is too coarse; none for any other."""
    word = text.casefold().strip(" .")
    word = next((word.removeprefix(article) for article in _ARTICLES if word.startswith(article)), word)
    return tuple(read_table(_TABLE).get(word, ()))


def coarse_warnings(file: LabelFile) -> list[str]:
    """Warn of each label whose only prompt is a coarse word; background labels may be coarse."""
    return [
        f"{file.source}: {file.place} {entry.line}: {entry.text!r} is coarse, its pictures have little in common; "
        f"finer labels: {', '.join(finer)}"
        for entry in file.entries
        if not entry.background and len(entry.phrases) == 1 and (finer := finer_forms(entry.phrases[0]))
    ]
