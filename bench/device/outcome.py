"""The outcome of one step on a device, and the Markdown record of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["passed", "failed", "absent", "not reached"]
Figure = str | int | float | bool | None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step found. ``absent`` is a part that this machine does not have; ``not reached``: the time was up."""

    step: str
    status: Status
    seconds: float
    figures: dict[str, Figure] = {}
    reason: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step's process answers: whether it held, and its figures."""

    passed: bool
    figures: dict[str, Figure] = {}
    reason: str = ""


def summary(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes in one line."""
    counts = {status: sum(one.status == status for one in outcomes) for status in get_args(Status)}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count or status != "not reached")


def markdown(outcomes: Sequence[Outcome], title: str, facts: dict[str, str]) -> str:
    """Write a record for ``jetson/README.md``: the machine, a row per step, and every figure as it came out."""
    lines = [f"### {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), f"- {summary(outcomes)}", ""]
    lines += ["| step | status | seconds | figures |", "|---|---|--:|---|"]
    for one in outcomes:
        figures = "; ".join(f"{name} {_text(value)}" for name, value in one.figures.items())
        said = "; ".join(part for part in (figures, one.reason) if part).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {one.step} | {one.status} | {one.seconds:.1f} | {said} |")
    return "\n".join(lines) + "\n"


def _text(value: Figure) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
