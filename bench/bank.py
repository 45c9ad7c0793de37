"""A label bank of random vectors: matching costs the same whatever the labels mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank

if TYPE_CHECKING:
    from overflight.runtime.bundle import Manifest


def random_bank(manifest: Manifest, labels: int) -> LabelBank:
    """Make a bank of ``labels`` unit vectors that fits a bundle."""
    vectors = np.random.default_rng(labels).standard_normal((labels, manifest.width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    header = BankHeader(
        schema=SCHEMA,
        name=f"{labels} random vectors",
        model=manifest.name,
        tower=manifest.tower,
        activation=manifest.activation,
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=tuple(Label(f"label {row}", (f"label {row}",)) for row in range(labels)),
    )
    return LabelBank.make(header, vectors)
