"""overflight export: checkpoint -> bundle."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.export.assemble import Report
    from overflight.runtime.bundle import Bundle


@click.command()
@click.argument("checkpoint")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name in manifests and reports; the checkpoint's own by default.")
@click.option("--labels", type=click.Path(path_type=Path), multiple=True, help="A label file whose bank ships with it.")
@click.option("--replace", is_flag=True, help="Put the new bundle in the place of an old one, in one step.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(
    checkpoint: str, bundle: Path, name: str | None, labels: tuple[Path, ...], replace: bool, as_json: bool
) -> None:
    """Turn a checkpoint into a bundle, and prove it.

    CHECKPOINT is a directory with config.json, safetensors, preprocessor_config.json and a tokenizer; or a Hugging Face
    id, which is downloaded; or an OpenCLIP .pt with a tokenizer.json beside it.

    \b
    Example: overflight export google/siglip-base-patch16-256 ./base-256
    """
    from overflight.export.assemble import check_target, export
    from overflight.export.fetch import fetched

    check_target(bundle, replace=replace)
    with fetched(checkpoint, bundle.absolute().parent) as (directory, own_name), _progress() as report:
        made = export(directory, bundle, name=name or own_name, labels=labels, replace=replace, report=report)
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), **msgspec.to_builtins(made.manifest)}, indent=1))
    else:
        _show(bundle, made)


@contextmanager
def _progress() -> Iterator[Report]:
    """Show each stage as a bar on standard error, away from what is printed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    stages: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def report(stage: str, share: float) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=1.0)
            bars.update(stages[stage], completed=share)

        yield report


def _show(path: Path, bundle: Bundle) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = bundle.manifest
    table = Table(title=f"{manifest.name} ({manifest.family}, {manifest.resize.side} px, {manifest.width} numbers)")
    for title in ("tower", "reference", "largest difference", "inputs"):
        table.add_column(title)
    for row in manifest.parity:
        table.add_row(row.tower, row.reference, f"{row.max_abs:.1e}", str(row.samples))
    console = Console()
    console.print(table)
    console.print(f"{path}: bundle {bundle.sha256[:16]}, tower {manifest.tower[:16]}")
