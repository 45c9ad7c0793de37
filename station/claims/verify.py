"""Verifying a claim: its sentence against its counter-sentences and against a panel of sentences about other ground.

This is a comparison of sentences, no proof and no probability: docs/describe.md has its agreement and abstention.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.export.tables import read_table
from overflight.runtime.errors import UsageError
from overflight.station.claims.counters import Counter, counter_sentences, negated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]

SCHEMA = 1
# Fitted on 400 captions of AID's valid pictures, half of them of another scene: bench/studies/claims.py.
LEAST_PERCENTILE = 90.0  # of the panel: a claim below it is not supported
MOST_PERCENTILE = 50.0  # of the panel: a claim below it is contradicted
MARGIN = 0.05  # in cosine: the lead of a claim over its best counter-sentence, or the other way round

Answer = Literal["supported", "contradicted", "cannot tell"]


class Compared(msgspec.Struct, frozen=True):
    """A counter-sentence with its cosine."""

    text: str
    rule: str
    cosine: float


class Hashes(msgspec.Struct, frozen=True):
    """SHA-256 of the model's tensors, the rules with the panel, and the source, 64 hex digits each."""

    model: str
    rules: str
    source: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison says about a claim.

    ``margin`` is the claim's cosine less that of the best counter-sentence, None without one. ``percentile`` is the
    share of the panel's sentences, in percent, that fit the picture less well than the claim. A claim of absence is
    compared by what it denies (``read_as``) and never supported: what was not seen may still be there.
    """

    schema: int
    claim: str
    read_as: str
    answer: Answer
    cosine: float
    margin: float | None
    percentile: float
    counters: tuple[Compared, ...]
    model: str
    source: str
    hashes: Hashes


def decide(cosine: float, best_counter: float | None, percentile: float) -> Answer:
    """Decide from the claim's cosine, that of its best counter-sentence, and its place in the panel."""
    margin = None if best_counter is None else cosine - best_counter
    if percentile < MOST_PERCENTILE or (margin is not None and margin < -MARGIN and percentile < LEAST_PERCENTILE):
        return "contradicted"
    if percentile >= LEAST_PERCENTILE and (margin is None or margin > -MARGIN):
        return "supported"
    return "cannot tell"


def verify(
    claim: str,
    embedding: NDArray[np.float32],
    embed_texts: EmbedTexts,
    *,
    against: Sequence[str] = (),
    model: str = "",
    source: str = "",
    hashes: Hashes | None = None,
) -> Verdict:
    """Verify a claim against a picture's unit embedding ``[D]``; ``against`` are the user's counter-sentences.

    Raises UsageError for a claim or a counter-sentence that says nothing.
    """
    plain = " ".join(claim.split())
    if len(plain) < 3:
        raise UsageError(f"claim {claim!r}: expected a sentence about the picture")
    denied = negated(plain)
    asked = denied or plain
    if wrong := [text for text in against if not text.strip() or " ".join(text.split()) in {plain, asked}]:
        raise UsageError(f"--against {wrong[0]!r}: expected a sentence other than the claim")
    counters = [*counter_sentences(asked), *(Counter(text, "given") for text in against)]
    panel = panel_sentences()
    vectors = embed_texts([asked, *(counter.text for counter in counters), *panel])
    cosines = vectors @ embedding
    own, others, rest = float(cosines[0]), cosines[1 : 1 + len(counters)], cosines[1 + len(counters) :]
    percentile = 100 * float((rest < own).mean())
    best = float(others.max()) if len(others) else None
    answer = decide(own, best, percentile)
    if denied is not None:
        answer = "contradicted" if answer == "supported" else "cannot tell"
    ranked = sorted(zip(counters, others, strict=True), key=lambda pair: -float(pair[1]))
    return Verdict(
        schema=SCHEMA,
        claim=plain,
        read_as=asked,
        answer=answer,
        cosine=round(own, 4),
        margin=None if best is None else round(own - best, 4),
        percentile=round(percentile, 1),
        counters=tuple(Compared(one.text, one.rule, round(float(cosine), 4)) for one, cosine in ranked),
        model=model,
        source=source,
        hashes=hashes or Hashes("", "", ""),
    )


@cache
def panel_sentences() -> tuple[str, ...]:
    """Return the shipped sentences about many kinds of ground."""
    panel: list[str] = read_table(Path(__file__).with_name("panel.toml"))["sentences"]
    return tuple(panel)


def hash_rules() -> str:
    """Return the SHA-256 of the rules with the panel."""
    return sha256(
        b"".join(Path(__file__).with_name(f"{name}.toml").read_bytes() for name in ("rules", "panel"))
    ).hexdigest()
