"""``overflight build``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from overflight.runtime.engines import TARGETS

if TYPE_CHECKING:
    from overflight.export.build import Built, CandidateResult
    from overflight.runtime.engines import Target

_MOST_BATCH = 64


class BatchSizes(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Rising batch sizes, such as 1,8."""

    name = "batches"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Turn "1,8" into (1, 8)."""
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in value.split(","))
        except ValueError:
            sizes = ()
        rising = all(first < second for first, second in pairwise(sizes))
        if not sizes or sizes[0] < 1 or sizes[-1] > _MOST_BATCH or not rising:
            self.fail(f"{value}: expected rising batch sizes from 1 to {_MOST_BATCH}, such as 1,8", param, ctx)
        return sizes


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(["auto", *TARGETS]), default="auto", help="One kind of engine, or all.")
@click.option("--frames", multiple=True, help="Frames to judge and time on; the bundle's hold-out when left out.")
@click.option(
    "--bank", "banks", multiple=True, type=click.Path(path_type=Path), help="Further label banks to agree on."
)
@click.option(
    "--torch",
    "torch_checkpoint",
    type=click.Path(path_type=Path),
    help="A checkpoint to time in transformers and torch, too.",
)
@click.option(
    "--profile",
    "profiles",
    type=BatchSizes(),
    default=None,
    metavar="N[,N]",
    help="TensorRT: the largest batch of each profile; 1,8 gives tiles a profile of their own.  [default: 8]",
)
@click.option(
    "--level",
    type=click.IntRange(0, 5),
    default=None,
    help="TensorRT: how many tactics its builder tries; 5 takes the longest.  [default: 3]",
)
@click.option("--json", "as_json", is_flag=True, help="Print every row as JSON, raw samples included.")
def command(
    bundle: Path,
    target: Target | Literal["auto"],
    frames: tuple[str, ...],
    banks: tuple[Path, ...],
    torch_checkpoint: Path | None,
    profiles: tuple[int, ...] | None,
    level: int | None,
    as_json: bool,
) -> None:
    """Build this device's engines, test each, and use the fastest that passes.

    Every candidate is held to the fp32 reference on held-out frames; those that are faithful are timed side by side.
    Frames in folders that are named as labels also give the accuracy.

    \b
    overflight build base-256/
    overflight build base-256/ --target openvino-cpu --frames test-flight.mp4
    overflight build base-256/ --target tensorrt --profile 1,8
    """
    import msgspec

    from overflight.export.build import build, check_any, summarise
    from overflight.export.candidates import DEFAULT_PLANS, PlanChoice
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.evaluation.holdout import bundled_holdout, gather_heldout, overlap
    from overflight.runtime.progress import shown_progress

    opened = Bundle.open(bundle)
    own = [LabelBank.load(opened.file(name)) for name in opened.manifest.files if name.startswith("labels/")]
    given = [LabelBank.load(path) for path in banks]
    for path, bank in zip(banks, given, strict=True):
        bank.check_fits(opened.manifest, source=str(path))
    held = gather_heldout(opened, frames, 1024) if frames else bundled_holdout(opened)
    same = overlap(opened, held)
    if same:
        click.echo(f"overflight: {same} of {len(held.frames)} frames look like ones it was calibrated with", err=True)
    with shown_progress() as report:
        built = build(
            opened,
            held,
            target=target,
            plans=PlanChoice(profiles or DEFAULT_PLANS.profiles, DEFAULT_PLANS.level if level is None else level),
            banks=own + given,
            torch_checkpoint=torch_checkpoint,
            overlapping=same,
            report=report,
        )
    if as_json:
        click.echo(msgspec.json.encode(built))
    else:
        _show(built)
        click.echo(summarise(built))
    check_any(built)


def _show(built: Built) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    title = escape(f"{built.model}, {built.samples} frames of {built.frames}")
    table = Table(title=title, caption=escape(built.device))
    for title in ("engine", "cosine", "p1", "top-1", "points", "MB", "p50 ms", "p95 ms", "ratio", ""):
        table.add_column(title, no_wrap=bool(title))
    whole = next((row.timing for row in built.rows if row.status == "torch"), None) or next(
        (
            row.record.timing
            for row in built.rows
            if row.record and row.record.target == "onnxruntime-cpu" and row.record.precision == "fp32"
        ),
        None,
    )
    for row in built.rows:
        table.add_row(*map(escape, _cells(row, None if whole is None else whole.p50_ns)))
    # Of a narrow terminal the numbers keep their places; a file or a pipe has no width.
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    for row in built.rows:
        note = row.record.note if row.record else ""
        for text in filter(None, (row.reason, note)):
            console.print(f"{row.title}: {text}", markup=False, highlight=False)


def _cells(row: CandidateResult, whole_ns: int | None) -> list[str]:
    record = row.record
    timing = row.timing or (record.timing if record else None)
    found = record.verdict.fidelity if record and record.verdict else None
    first = found.agreement[0] if found and found.agreement else None
    points = ""
    if first and first.accuracy is not None and first.reference_accuracy is not None:
        points = f"{first.accuracy:.1%} ({100 * (first.accuracy - first.reference_accuracy):+.1f})"
    return [
        row.title,
        f"{found.cosine_mean:.5f}" if found else "",
        f"{found.cosine_p1:.5f}" if found else "",
        f"{first.top1:.2%}" if first else "",
        points,
        f"{record.size_bytes / 1e6:.1f}" if record else "",
        f"{timing.p50_ns / 1e6:.2f}" if timing else "",
        f"{timing.p95_ns / 1e6:.2f}" if timing else "",
        f"{timing.p50_ns / whole_ns:.3f}" if timing and whole_ns else "",
        row.status,
    ]
