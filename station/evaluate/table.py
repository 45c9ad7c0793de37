"""One table of a run: what was measured, by which protocol, with intervals, next to what others published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.station.evaluate.measures import Measure

SCHEMA = 1


class Row(msgspec.Struct, frozen=True):
    """A measured value with its 95 % interval; ``protocol`` says how, ``seed`` where chance is part of it."""

    task: str
    measure: str
    value: float
    low: float | None
    high: float | None
    samples: int
    protocol: str
    seed: str = ""


class Published(msgspec.Struct, frozen=True):
    """A value that others published for this task and set, in the unit of the measured ones."""

    task: str
    model: str
    value: float
    source: str


class Evaluation(msgspec.Struct, frozen=True):
    """A run: hashes of what was evaluated and on what, prompts, rows, and published rows."""

    schema: int
    model: str
    bundle_sha256: str
    tower: str
    engine: str
    dataset: str
    layout: str
    dataset_sha256: str
    split: str
    split_protocol: str
    pictures: int
    left_out: int
    templates: str
    prompts: tuple[str, ...]
    rows: tuple[Row, ...]
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}


def row(task: str, measure: str, found: Measure, protocol: str, seed: str = "") -> Row:
    """Make a row of a measure."""
    return Row(task, measure, found.value, found.low, found.high, found.samples, protocol, seed)


def as_markdown(found: Evaluation) -> str:
    """Write the table as Markdown; published rows are marked, and stand after the measured ones of their task."""
    example = found.prompts[0] if found.prompts else ""
    lines = [
        f"# {found.model} on {found.dataset}, split {found.split}",
        "",
        f"Split: {found.split_protocol}; {found.pictures:,} pictures. Engine {found.engine}. "
        f'Templates: {found.templates} ({len(found.prompts)} prompts, such as "{example}").',
        f"Bundle {found.bundle_sha256[:16]}, tower {found.tower[:16]}, data {found.dataset_sha256[:16]}.",
        "",
        "| task | measure | value | 95 % | n | protocol |",
        "|---|---|--:|--:|--:|---|",
    ]
    for task in dict.fromkeys(one.task for one in found.rows):
        lines += [_line(one) for one in found.rows if one.task == task]
        lines += [
            f"| {task} | *published:* {one.model} | *{one.value:.3f}* | | | {one.source} |"
            for one in found.published
            if one.task == task
        ]
    return "\n".join([*lines, *_notes(found.notes)]) + "\n"


def _line(one: Row) -> str:
    interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
    seed = f"; {one.seed}" if one.seed else ""
    return f"| {one.task} | {one.measure} | {one.value:.3f} | {interval} | {one.samples:,} | {one.protocol}{seed} |"


def _notes(notes: Sequence[str]) -> list[str]:
    return ["", *(f"- {note}" for note in notes)] if notes else []
