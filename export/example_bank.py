"""A label bank from folders of example pictures, joined with text labels where a label file is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.examples import Measured, example_hashes, label_from_examples
from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.overflight import embed
from overflight.runtime.sources.image import SUFFIXES, read_image

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
    """Make a label from each folder of examples, against the background and the other labels' examples.

    ``text_bank`` holds labels made from texts, which keep their own logits; ``text_vectors`` are texts that count as
    one more example of their label. Pictures are embedded with the fp32 reference. Raises UsageError for folders that
    hold too few pictures or contradict each other.
    """
    if text_bank is not None and text_bank.header.activation == "softmax":
        raise UsageError(
            f"{bundle.manifest.name} has a softmax: its text labels say which one fits, labels from examples whether "
            "any does; make two banks, or leave the label file out"
        )
    unreadable: list[str] = []
    engine = open_reference(bundle)
    try:
        shown = {label: _embed(bundle, engine, folder, unreadable) for label, folder in examples.items()}
        around = [_embed(bundle, engine, folder, unreadable) for folder in background]
    finally:
        engine.close()
    labels = list(text_bank.header.labels) if text_bank else []
    vectors = list(text_bank.vectors) if text_bank else []
    measured = {}
    for label, (wanted, hashes) in shown.items():
        others = [one for other, (one, _) in shown.items() if other != label] + [one for one, _ in around]
        text = (text_vectors or {}).get(label)
        try:
            made = label_from_examples(wanted, np.concatenate(others), prevalence=prevalence, text=text)
        except UsageError as error:
            raise UsageError(f"{label}: {error}") from error
        labels.append(
            Label(label, threshold=THRESHOLD, logit_scale=made.logit_scale, logit_bias=made.logit_bias, examples=hashes)
        )
        vectors.append(made.vector)
        measured[label] = made.measured
    header = _header(bundle, name, text_bank, tuple(labels))
    return ExampleBank(LabelBank.make(header, np.stack(vectors)), measured, tuple(unreadable))


def parse_examples(given: Sequence[str]) -> dict[str, Path]:
    """Read ``fire=folder`` options. Raises UsageError."""
    from pathlib import Path

    found: dict[str, Path] = {}
    for text in given:
        label, equals, folder = text.partition("=")
        if not equals or not label.strip() or label.strip() in found:
            raise UsageError(f"--examples {text}: expected LABEL=FOLDER, each label once")
        if not Path(folder).is_dir():
            raise UsageError(f"--examples {text}: {folder} is not a folder of pictures")
        found[label.strip()] = Path(folder)
    return found


def _embed(
    bundle: Bundle, engine: object, folder: Path, unreadable: list[str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Embed the pictures of a folder ``[N, D]``, with their hashes; what cannot be read is named."""
    frames = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        try:
            frames.append(read_image(path))
        except SourceError as error:
            unreadable.append(str(error))
    if not frames:
        raise UsageError(f"{folder}: no pictures that can be read")
    hashes = example_hashes([frame.pixels for frame in frames])
    return embed(engine, bundle, frames).copy(), hashes  # type: ignore[arg-type]


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
