"""What is done to a text before its tokenizer, as each model's training did it."""

from __future__ import annotations

import html
import re
import string
from typing import TYPE_CHECKING

from overflight.runtime.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.bundle import Clean

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonicalise(text: str, *, lower: bool = True) -> str:
    """Lower-case, delete punctuation, collapse white space: what transformers' SigLIP tokenizer does."""
    text = (text.lower() if lower else text).translate(_NO_PUNCTUATION)
    return re.sub(r"\s+", " ", text).strip()


def cleaner(clean: Clean) -> Callable[[str], str]:
    """Return the cleaning of this name. Raises MissingError where ftfy is not installed and a text needs it."""
    match clean:
        case "none":
            return str
        case "whitespace":
            return lambda text: " ".join(_basic(text).split())
        case "lower":
            return lambda text: " ".join(_basic(text).split()).lower()
        case "canonicalise":  # big_vision's: an underscore separates words, unlike in transformers
            return lambda text: canonicalise(_basic(text).replace("_", " "))


def _basic(text: str) -> str:
    """Mend characters and HTML entities, as every OpenCLIP tokenizer does first."""
    if not text.isascii() or "&" in text or not text.isprintable():
        try:
            import ftfy
        except ImportError as error:
            raise missing_extra("ftfy", "export") from error
        text = ftfy.fix_text(text)
    return html.unescape(html.unescape(text)).strip()
