"""Caption scores by pycocoevalcap, the reference implementation: BLEU, ROUGE-L, CIDEr, and METEOR where Java is."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def tokenise(text: str) -> str:
    """Lower-case words without punctuation: what the reference's Java tokenizer makes of plain English captions."""
    return " ".join(_WORD.findall(text.lower()))


def caption_scores(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> dict[str, float]:
    """Return the scores of one caption for each picture against its references.

    S*m, the survey's composite, is the mean of BLEU-4, METEOR, ROUGE-L and CIDEr, and needs METEOR. Raises UsageError
    where pictures and captions are not the same, MissingError without pycocoevalcap.
    """
    if references.keys() != captions.keys() or not captions:
        missing = sorted(references.keys() ^ captions.keys())
        raise UsageError(f"captions: {len(missing)} pictures have none or are unknown, such as {missing[:2]}")
    wanted = {name: [tokenise(text) for text in several] for name, several in references.items()}
    given = {name: [tokenise(text)] for name, text in captions.items()}
    bleu, meteor, rouge, cider = _scorers()
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints
        values, _ = bleu(4).compute_score(wanted, given)
        found = {f"BLEU-{n}": float(value) for n, value in enumerate(values, start=1)}
        found["ROUGE-L"] = float(np.float64(rouge().compute_score(wanted, given)[0]))
        found["CIDEr"] = float(np.float64(cider().compute_score(wanted, given)[0]))
        if shutil.which("java"):
            found["METEOR"] = float(meteor().compute_score(wanted, given)[0])
            found["S*m"] = (found["BLEU-4"] + found["METEOR"] + found["ROUGE-L"] + found["CIDEr"]) / 4
    return found


def _scorers() -> tuple[Any, Any, Any, Any]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise missing_extra("pycocoevalcap", "bench") from error
    return Bleu, Meteor, Rouge, Cider
