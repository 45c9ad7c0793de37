"""Similarity: how well texts fit one picture, as cosine and as the tower's own score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.export.encode import TextEncoder
from overflight.export.prompts import SLOT
from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import UsageError
from overflight.runtime.overflight import embed
from overflight.runtime.sources.image import read_image
from overflight.runtime.store import default_engine

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from overflight.runtime.bundle import Bundle


class Similarity(msgspec.Struct, frozen=True):
    """How well one text fits the picture.

    ``cosine`` is in [-1, 1]. A sigmoid tower (SigLIP) gives each text a ``score`` of its own,
    sigmoid(exp(logit_scale)·cosine + logit_bias); a softmax tower (CLIP) only a ``share`` among the given texts.
    ``unknown`` holds the characters that the tower cannot read: they count for nothing.
    """

    text: str
    prompt: str
    cosine: float
    score: float | None
    share: float | None
    unknown: str


def compare(
    picture: str | os.PathLike[str], texts: Sequence[str], bundle: Bundle, *, template: str = SLOT
) -> list[Similarity]:
    """Compare one picture with texts, best first; ``template`` is what each text is set into.

    Raises SourceError for an unreadable picture, UsageError for a text longer than the context.
    """
    if template.count(SLOT) != 1:
        raise UsageError(f"template {template!r}: expected one {SLOT} where the text stands")
    frame = read_image(picture)
    prompts = [template.replace(SLOT, text) for text in texts]
    with TextEncoder(bundle) as encoder:
        vectors = encoder.encode(prompts)
        unknown = [encoder.tokeniser.split(prompt).unknown for prompt in prompts]
    engine = default_engine(bundle)
    try:
        (embedding,) = embed(engine, bundle, [frame])
    finally:
        engine.close()
    manifest = bundle.manifest
    header = BankHeader(
        schema=SCHEMA,
        name="similarity",
        model=manifest.name,
        tower=manifest.tower,
        activation=manifest.activation,
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=tuple(Label(text, (prompt,)) for text, prompt in zip(texts, prompts, strict=True)),
    )
    match = Matcher(LabelBank(header, vectors, raw=b"")).match(embedding)  # not rounded: it is never stored
    independent = manifest.activation == "sigmoid"
    answers = [
        Similarity(
            text,
            prompts[row],
            float(match.cosines[row]),
            float(match.scores[row]) if independent else None,
            None if independent else float(match.shares[row]),
            unknown[row],
        )
        for row, text in enumerate(texts)
    ]
    return sorted(answers, key=lambda answer: -answer.cosine)
