"""overflight export: checkpoint -> bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle


@click.command()
@click.argument("checkpoint")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name in manifests and reports; the checkpoint's own by default.")
@click.option("--labels", type=click.Path(path_type=Path), multiple=True, help="A label file whose bank ships with it.")
@click.option("--like", help="The architecture of a bare file of weights: ViT-H-14, ViT-B-32-quickgelu, RN50 ...")
@click.option("--tokenizer", help="Directory or hub id whose tokenizer to use, where the checkpoint has none.")
@click.option("--base", help="Directory or hub id of the model that a LoRA adapter was trained on.")
@click.option("--prove", is_flag=True, help="Compare with open_clip or transformers, loading included.")
@click.option("--replace", is_flag=True, help="Replace an existing bundle, in one step.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(
    checkpoint: str,
    bundle: Path,
    name: str | None,
    labels: tuple[Path, ...],
    like: str | None,
    tokenizer: str | None,
    base: str | None,
    prove: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Turn a checkpoint into a bundle, and prove it.

    CHECKPOINT is a directory in the layout of transformers or open_clip, a Hugging Face id, which is downloaded, or a
    file of weights. A bare file needs a tokenizer.json next to it and --like with the name of its architecture.

    \b
    Examples:
      overflight export google/siglip-base-patch16-256 ./base-256
      overflight export RS5M_ViT-H-14.pt ./georsclip --like ViT-H-14
    """
    from overflight.export.assemble import check_target, export
    from overflight.export.checkpoint import Reading
    from overflight.export.fetch import locate, locate_tokenizer
    from overflight.runtime.progress import shown_progress

    check_target(bundle, replace=replace)
    source, own_name = locate(checkpoint)
    reading = Reading(
        like=like,
        tokenizer=locate_tokenizer(tokenizer) if tokenizer else None,
        base=locate(base)[0] if base else None,
    )
    with shown_progress() as report:
        made = export(
            source,
            bundle,
            name=name or own_name,
            labels=labels,
            replace=replace,
            prove_outside=prove,
            reading=reading,
            report=report,
        )
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), **msgspec.to_builtins(made.manifest)}, indent=1))
    else:
        show(bundle, made)


def show(path: Path, bundle: Bundle) -> None:
    """Print what was exported, and how it was proven."""
    from rich.console import Console
    from rich.table import Table

    manifest = bundle.manifest
    table = Table(title=f"{manifest.name} ({manifest.family}, {manifest.resize.side} px, {manifest.width} numbers)")
    for title in ("tower", "reference", "largest difference", "inputs"):
        table.add_column(title)
    for row in manifest.parity:
        table.add_row(row.tower, row.reference, f"{row.max_abs:.1e}", str(row.samples))
    if manifest.proven is not None:
        proof = manifest.proven
        table.add_row("image", proof.by, f"{proof.image_max_abs:.1e}", f"{proof.pictures} pictures")
        table.add_row("text", proof.by, f"{proof.text_max_abs:.1e}", f"{proof.texts} texts")
    console = Console()
    console.print(table)
    for note in manifest.notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)
    console.print(f"{path}: bundle {bundle.sha256[:16]}, tower {manifest.tower[:16]}")
