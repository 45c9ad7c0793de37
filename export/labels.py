"""Labels: a label file becomes a label bank, or a list of everything that is wrong with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.coarse import coarse_warnings
from overflight.export.default_decisions import DefaultDecisions, read_decisions
from overflight.export.encode import TextEncoder
from overflight.export.label_file import SUFFIXES, LabelEntry, LabelFile, Mistakes, from_list, read_label_file
from overflight.export.prompts import DEFAULT, Templates, is_sentence, read_templates
from overflight.runtime.bank import SCHEMA, BankHeader, Label, LabelBank
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from overflight.export.encode import Progress
    from overflight.export.tokenise import Tokeniser
    from overflight.runtime.bundle import Bundle

NEAR_DUPLICATE = 0.95  # cosine; at it two labels' vectors are 18 degrees apart

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """One text that is encoded: ``form`` is the template it was set into, None for a sentence."""

    text: str
    form: str | None
    ids: Ids


@dataclass(frozen=True)
class CompiledLabel:
    """One label of a compiled bank, and the other label whose vector is nearest."""

    label: Label
    prompts: int
    nearest: str | None
    cosine: float | None


@dataclass(frozen=True)
class Compilation:
    """A bank, its rows, and what its author should look at again."""

    bank: LabelBank
    rows: tuple[CompiledLabel, ...]
    warnings: tuple[str, ...]


def compile_bank(
    path: str | os.PathLike[str],
    bundle: Bundle,
    *,
    templates: str = DEFAULT,
    defaults: bool = True,
    progress: Progress | None = None,
) -> LabelBank:
    """Compile a ``.txt`` or TOML label file for a bundle's towers.

    ``templates`` names the shipped set for labels whose file names none; without ``defaults`` the bank has neither the
    model's threshold nor its background. Raises UsageError that lists every mistake of
    the file with its line.
    """
    file = read_label_file(Path(path), read_templates(templates))
    return compile_file(file, bundle, progress, defaults=defaults).bank


def compile_labels(
    texts: list[str],
    bundle: Bundle,
    *,
    templates: str = DEFAULT,
    name: str = "labels",
    defaults: bool = True,
    progress: Progress | None = None,
) -> LabelBank:
    """Compile label texts for a bundle's towers; the rules are those of a ``.txt`` file."""
    return compile_file(from_list(texts, read_templates(templates), name), bundle, progress, defaults=defaults).bank


def compile_file(
    file: LabelFile, bundle: Bundle, progress: Progress | None = None, *, defaults: bool = True
) -> Compilation:
    """Compile what was read: mean of each label's unit prompt embeddings, normalised again.

    The ensemble is CLIP's (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    2021, section 3.1.4). Raises UsageError that lists every mistake with its line.
    """
    with TextEncoder(bundle) as encoder:
        prompts, warnings = lint(file, encoder.tokeniser)
        vectors = encoder.encode_ids([prompt.ids for entry in prompts for prompt in entry], progress)
    ends = np.cumsum([len(entry) for entry in prompts])
    embedded = np.split(vectors, ends[:-1])
    means = np.stack([_unit_mean(part) for part in embedded])
    header, background = _with_decisions(_header(file, bundle), read_decisions(bundle) if defaults else None)
    if file.default_threshold is not None:
        header = msgspec.structs.replace(header, threshold=file.default_threshold)
    bank = LabelBank.make(header, means if background is None else np.concatenate([means, background]))
    texts = bank.vectors[: len(means)]
    cosines = texts @ texts.T
    near = _near_duplicates(file.entries, prompts, embedded, cosines)
    return Compilation(bank, _rows(bank, prompts, cosines), (*warnings, *coarse_warnings(file), *near))


def lint(file: LabelFile, tokeniser: Tokeniser) -> tuple[list[list[Prompt]], list[str]]:
    """Set every label into its templates and judge the texts before anything is encoded.

    Returns each label's distinct prompts, and warnings. Raises UsageError that lists every duplicate, every text
    longer than the context and every text of which nothing is left.
    """
    mistakes = Mistakes(file.source, file.place)
    warnings: list[str] = []
    prompts: list[list[Prompt]] = []
    names: dict[str, LabelEntry] = {}
    seen: dict[frozenset[Ids], LabelEntry] = {}
    for entry in file.entries:
        _check_phrases(entry, tokeniser, mistakes, warnings, file)
        distinct = _prompts(entry, tokeniser, mistakes)
        prompts.append(distinct)
        twin = seen.setdefault(frozenset(prompt.ids for prompt in distinct), entry)
        namesake = names.setdefault(entry.text.casefold(), entry)
        if twin is not entry:
            same = f"{entry.text!r} is the same to the text tower as {twin.text!r}"
            mistakes.add(entry.line, f"{same} of {file.place} {twin.line}; remove one")
        elif namesake is not entry:
            mistakes.add(entry.line, f"{entry.text!r} is reported already by {file.place} {namesake.line}; rename one")
    mistakes.refuse()
    return prompts, warnings


def _check_phrases(
    entry: LabelEntry, tokeniser: Tokeniser, mistakes: Mistakes, warnings: list[str], file: LabelFile
) -> None:
    nothing = tokeniser.split("").ids
    seen: dict[Ids, str] = {}
    for phrase in entry.phrases:
        tokens = tokeniser.split(phrase)
        if tokens.ids == nothing:
            mistakes.add(entry.line, f"nothing of {phrase!r} is left for the text tower, which drops punctuation")
        elif tokens.ids in seen:
            mistakes.add(entry.line, f"prompt {phrase!r} is the same to the text tower as {seen[tokens.ids]!r}")
        seen.setdefault(tokens.ids, phrase)
        if tokens.unknown:
            share = len(tokens.unknown) / len(set(phrase.replace(" ", "")))
            warnings.append(
                f"{file.source}: {file.place} {entry.line}: {phrase!r}: the text tower cannot read "
                f"{tokens.unknown!r} ({min(share, 1):.0%} of its characters); write it in the tower's language"
            )


def _prompts(entry: LabelEntry, tokeniser: Tokeniser, mistakes: Mistakes) -> list[Prompt]:
    """Return a label's prompts, each token row once: forms that differ in punctuation alone are one to SigLIP."""
    distinct: dict[Ids, Prompt] = {}
    longest = (0, "")
    for phrase in entry.phrases:
        sentence = is_sentence(phrase)
        forms = (None,) if sentence else entry.templates.forms
        for text, form in zip(entry.templates.fill(phrase), forms, strict=True):
            tokens = tokeniser.split(text)
            longest = max(longest, (tokens.length, text))
            distinct.setdefault(tokens.ids, Prompt(text, form, tokens.ids))
    length, text = longest
    if length > tokeniser.context:
        mistakes.add(
            entry.line, f"{text!r} needs {length} tokens, the text tower takes {tokeniser.context}; shorten it"
        )
    return list(distinct.values())


def _unit_mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _header(file: LabelFile, bundle: Bundle) -> BankHeader:
    manifest = bundle.manifest
    used: dict[str, Templates] = {}
    labels = []
    for entry in file.entries:
        templates = None if all(is_sentence(phrase) for phrase in entry.phrases) else entry.templates
        if templates is not None:
            used[templates.name] = templates
        labels.append(
            Label(
                entry.text,
                entry.phrases,
                group=entry.group,
                background=entry.background,
                threshold=entry.threshold,
                templates=None if templates is None else templates.name,
            )
        )
    return BankHeader(
        schema=SCHEMA,
        name=file.name,
        model=manifest.name,
        tower=manifest.tower,
        activation=manifest.activation,
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=tuple(labels),
        exclusive=file.exclusive,
        templates={name: templates.forms for name, templates in used.items()},
    )


def _with_decisions(
    header: BankHeader, decisions: DefaultDecisions | None
) -> tuple[BankHeader, NDArray[np.float32] | None]:
    """Add the model's threshold and background labels to a header; return it with the background's vectors."""
    if decisions is None or not decisions.background:
        return header, None
    taken = {label.text for label in header.labels}
    labels = tuple(
        Label(
            one.name if one.name not in taken else f"{one.name} (background)",
            background=True,
            logit_scale=one.logit_scale,
            logit_bias=one.logit_bias,
        )
        for one in decisions.background
    )
    vectors = np.array([one.vector for one in decisions.background], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return msgspec.structs.replace(header, labels=header.labels + labels, threshold=decisions.threshold), vectors


def _rows(bank: LabelBank, prompts: list[list[Prompt]], cosines: NDArray[np.float32]) -> tuple[CompiledLabel, ...]:
    labels = bank.header.labels[: len(prompts)]
    if len(labels) == 1:
        return (CompiledLabel(labels[0], len(prompts[0]), None, None),)
    others = np.where(np.eye(len(labels), dtype=bool), -np.inf, cosines)
    nearest = others.argmax(axis=1)
    return tuple(
        CompiledLabel(label, len(texts), labels[other].text, float(cosines[index, other]))
        for index, (label, texts, other) in enumerate(zip(labels, prompts, nearest, strict=True))
    )


def _near_duplicates(
    entries: tuple[LabelEntry, ...],
    prompts: list[list[Prompt]],
    embedded: list[NDArray[np.float32]],
    cosines: NDArray[np.float32],
) -> list[str]:
    pairs = [
        (float(cosines[a, b]), a, b)
        for a, b in itertools.combinations(range(len(entries)), 2)
        if cosines[a, b] >= NEAR_DUPLICATE
    ]
    return [
        f"{entries[a].text!r} and {entries[b].text!r} are nearly the same to the text tower: cosine {cosine:.3f}"
        + _tell_forms(entries[a], entries[b], *(_by_form(prompts[i], embedded[i]) for i in (a, b)))
        for cosine, a, b in sorted(pairs, reverse=True)
    ]


def _by_form(prompts: list[Prompt], vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return the unit mean of a label's prompts in each form."""
    forms = dict.fromkeys(prompt.form for prompt in prompts if prompt.form is not None)
    return {form: _unit_mean(vectors[[prompt.form == form for prompt in prompts]]) for form in forms}


def _tell_forms(
    a: LabelEntry, b: LabelEntry, of_a: dict[str, NDArray[np.float32]], of_b: dict[str, NDArray[np.float32]]
) -> str:
    """Say where the templates of two labels differ, else the form that tells them apart best."""
    if a.templates.forms != b.templates.forms:
        return f"; their templates differ: {a.templates.name} and {b.templates.name}"
    common = [form for form in of_a if form in of_b]
    if len(common) < 2:
        return ""
    cosine, form = min((float(of_a[form] @ of_b[form]), form) for form in common)
    return f"; furthest apart in {form!r}: {cosine:.3f}"


def bank_path(labels: Path) -> Path:
    """Return where a label file's bank lies: next to it, with another ending."""
    return labels.with_suffix(".safetensors")


def save_bank(bank: LabelBank, path: Path) -> None:
    """Write a bank atomically. Raises UsageError where it cannot be written, or where a label file lies."""
    if path.suffix.lower() in SUFFIXES:
        raise UsageError(f"{path}: is a label file's name; say where the bank shall lie with -o BANK.safetensors")
    try:
        bank.save(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; say where the bank shall lie with -o BANK") from error
