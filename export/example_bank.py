"""A label bank from example pictures, frames or tiles, joined with text labels where a label file is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.example_source import is_source, read_examples
from overflight.export.examples import Measured, label_from_examples
from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

THRESHOLD = 0.5  # the score of a calibrated label at which it is as likely as not in a balanced set


class ExampleBank(msgspec.Struct, frozen=True):
    """A bank, what was measured of each label from examples, and the pictures that could not be read."""

    bank: LabelBank
    measured: dict[str, Measured]
    unreadable: tuple[str, ...]


def bank_from_examples(
    bundle: Bundle,
    examples: Mapping[str, Path],
    background: Sequence[Path],
    *,
    name: str,
    text_bank: LabelBank | None = None,
    text_vectors: Mapping[str, NDArray[np.float32]] | None = None,
    prevalence: float = 0.01,
) -> ExampleBank:
    """Make a label from each source of examples, against the background and the other labels' examples.

    ``text_bank`` holds labels made from texts, which keep their own logits; ``text_vectors`` are texts that count as
    one more example of their label. Pictures are embedded with the fp32 reference. Raises UsageError for folders that
    hold too few pictures or contradict each other.
    """
    if text_bank is not None and text_bank.header.activation == "softmax":
        raise UsageError(
            f"{bundle.manifest.name} has a softmax: its text labels say which one fits, labels from examples whether "
            "any does; make two banks, or leave the label file out"
        )
    engine = open_reference(bundle)
    try:
        shown = {label: read_examples(source, bundle, engine) for label, source in examples.items()}
        around = [read_examples(source, bundle, engine) for source in background]
    finally:
        engine.close()
    labels = list(text_bank.header.labels) if text_bank else []
    vectors = list(text_bank.vectors) if text_bank else []
    measured = {}
    for label, (wanted, hashes, _) in shown.items():
        others = [one.vectors for other, one in shown.items() if other != label] + [one.vectors for one in around]
        text = (text_vectors or {}).get(label)
        try:
            made = label_from_examples(wanted, np.concatenate(others), prevalence=prevalence, text=text)
        except UsageError as error:
            raise UsageError(f"{label}: {error}") from error
        labels.append(
            Label(
                label,
                threshold=THRESHOLD,
                logit_scale=made.logit_scale,
                logit_bias=made.logit_bias,
                examples=hashes,
                curve=tuple((point.shots, point.auroc, point.spread) for point in made.measured.curve),
            )
        )
        vectors.append(made.vector)
        measured[label] = made.measured
    header = _header(bundle, name, text_bank, tuple(labels))
    unreadable = tuple(line for one in (*shown.values(), *around) for line in one.unreadable)
    return ExampleBank(LabelBank.make(header, np.stack(vectors)), measured, unreadable)


def parse_examples(given: Sequence[str]) -> dict[str, Path]:
    """Read ``fire=folder`` options; see ``read_examples`` for other sources. Raises UsageError."""
    from pathlib import Path

    found: dict[str, Path] = {}
    for text in given:
        label, equals, folder = text.partition("=")
        if not equals or not label.strip() or label.strip() in found:
            raise UsageError(f"--examples {text}: expected LABEL=FOLDER, each label once")
        if not is_source(folder):
            raise UsageError(
                f"--examples {text}: {folder} is not a folder of pictures, a list (.txt), or FLIGHT#FRAMES of a flight"
            )
        found[label.strip()] = Path(folder)
    return found


def _header(bundle: Bundle, name: str, text_bank: LabelBank | None, labels: tuple[Label, ...]) -> BankHeader:
    if text_bank is not None:
        return msgspec.structs.replace(text_bank.header, labels=labels)
    manifest = bundle.manifest
    return BankHeader(
        schema=SCHEMA,
        name=name,
        model=manifest.name,
        tower=manifest.tower,
        activation="sigmoid",  # a calibrated label answers for itself, whatever the tower's own texts do
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=labels,
    )
