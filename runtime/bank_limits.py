"""The bounds of a label bank: what every field may hold, so that no bank can stop a flight or fill its memory."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bank import BankHeader, Label

MOST_BYTES = 32_000_000
MOST_HEADER_BYTES = 16_000_000
MOST_LABELS = 10_000
MOST_WIDTH = 8_192
MOST_TEXT = 300  # characters of a label, a group's or a bank's name: it is printed, published and drawn
MOST_PROMPT = 1_000  # characters of a prompt or a template
MOST_PROMPTS = 1_000  # of one label; also forms of one template set, and examples of one label
MOST_POINTS = 32  # of a learning curve
MOST_SETS = 100  # template sets
MOST_LOGIT_SCALE = 20.0  # a factor of 4.9e8; SigLIP's is 4.7, CLIP's 4.6
MOST_LOGIT_BIAS = 1e6
_NORM_TOLERANCE = 5e-3  # rounding to 16 bit moves a norm by less than 1e-3


def check(header: BankHeader, vectors: NDArray[np.float32]) -> str | None:
    """Return the first thing that is wrong with a bank, or None. The scores of a bank that passes are finite."""
    return (
        _check_names(header)
        or _check_logits("the bank", header.logit_scale, header.logit_bias)
        or _check_threshold("the bank", header.threshold)
        or _check_labels(header.labels)
        or _check_groups(header)
        or _check_templates(header)
        or _check_vectors(len(header.labels), vectors)
    )


def _check_names(header: BankHeader) -> str | None:
    for what, name in (("name", header.name), ("model", header.model), ("tower", header.tower)):
        if fault := _check_text(what, name):
            return fault
    return None


def _check_labels(labels: tuple[Label, ...]) -> str | None:
    if not 0 < len(labels) <= MOST_LABELS:
        return f"{len(labels):,} labels, expected 1 to {MOST_LABELS:,}"
    if all(label.background for label in labels):
        return "every label is background, expected one that can be reported"
    if fault := next(filter(None, map(_check_label, labels)), None):
        return fault
    name, times = Counter(label.text for label in labels).most_common(1)[0]
    return f"label {name[:40]!r} {times} times, expected different names" if times > 1 else None


def _check_label(label: Label) -> str | None:
    what = f"label {label.text[:40]!r}"
    return (
        _check_text("label", label.text)
        or (None if label.group is None else _check_text(f"{what}: group", label.group))
        or _check_list(f"{what}: prompts", label.prompts)
        or _check_list(f"{what}: examples", label.examples)
        or _check_curve(what, label.curve)
        or _check_threshold(what, label.threshold)
        or _check_logits(what, label.logit_scale or 0.0, label.logit_bias or 0.0)
    )


def _check_curve(what: str, curve: tuple[tuple[int, float, float], ...]) -> str | None:
    if len(curve) <= MOST_POINTS and all(
        shots > 0 and 0 <= mean <= 1 and 0 <= spread <= 1 for shots, mean, spread in curve
    ):
        return None
    return f"{what}: a learning curve of {len(curve)} points, expected at most {MOST_POINTS} with values from 0 to 1"


def _check_groups(header: BankHeader) -> str | None:
    if len(set(header.exclusive)) < len(header.exclusive):
        return "an exclusive group is listed twice"
    filled = {label.group for label in header.labels if not label.background}
    for group in header.exclusive:
        if group not in filled:
            return f"exclusive group {group[:40]!r} has no label"
    return None


def _check_templates(header: BankHeader) -> str | None:
    if len(header.templates) > MOST_SETS:
        return f"{len(header.templates):,} template sets, expected at most {MOST_SETS}"
    for name, forms in header.templates.items():
        if fault := _check_text("template set", name) or _check_list(f"template set {name!r}: forms", forms):
            return fault
    missing = {label.templates for label in header.labels} - header.templates.keys() - {None}
    return f"templates {str(min(missing, key=str))[:40]!r} are named but not stored" if missing else None


def _check_text(what: str, text: str) -> str | None:
    if not 0 < len(text) <= MOST_TEXT:
        return f"{what} of {len(text):,} characters, expected 1 to {MOST_TEXT}"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text):
        return f"{what} {text[:40]!r} contains a control character"
    return None


def _check_list(what: str, texts: tuple[str, ...]) -> str | None:
    if len(texts) > MOST_PROMPTS:
        return f"{what}: {len(texts):,}, expected at most {MOST_PROMPTS:,}"
    longest = max(map(len, texts), default=0)
    return f"{what}: {longest:,} characters, expected at most {MOST_PROMPT:,}" if longest > MOST_PROMPT else None


def _check_threshold(what: str, threshold: float | None) -> str | None:
    if threshold is None or 0 <= threshold <= 1:
        return None
    return f"{what}: threshold {threshold:g}, expected 0 to 1"


def _check_logits(what: str, logit_scale: float, logit_bias: float) -> str | None:
    for name, value, most in (
        ("logit_scale", logit_scale, MOST_LOGIT_SCALE),
        ("logit_bias", logit_bias, MOST_LOGIT_BIAS),
    ):
        if not (math.isfinite(value) and abs(value) <= most):
            return f"{what}: {name} {value:g}, expected {-most:g} to {most:g}"
    return None


def _check_vectors(labels: int, vectors: NDArray[np.float32]) -> str | None:
    if vectors.ndim != 2 or len(vectors) != labels:
        return f"{labels} labels but vectors {list(vectors.shape)}"
    if not 0 < vectors.shape[1] <= MOST_WIDTH:
        return f"vectors of {vectors.shape[1]:,} numbers, expected 1 to {MOST_WIDTH:,}"
    if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _NORM_TOLERANCE):
        return "vectors are not of unit length"
    return None
