"""``overflight labels``: a label file becomes a label bank."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from overflight.export.prompts import DEFAULT, template_names

if TYPE_CHECKING:
    from overflight.export.labels import Compilation


@click.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle; the default model's when left out.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where the bank goes; beside LABELS when left out.")
@click.option(
    "--templates",
    type=click.Choice(template_names()),
    help=f"The published forms for labels whose file names none; the model's own, else {DEFAULT}, when left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(labels: Path, bundle: Path | None, out: Path | None, templates: str | None, as_json: bool) -> None:
    """Compile a label file into a label bank.

    LABELS is a .txt file with one label per line, or TOML with groups, templates, prompts, background and thresholds.
    Mistakes are listed with their lines; nothing is written then.

    \b
    overflight labels scenes.txt --bundle models/bundle
    """
    from overflight.export.label_file import read_label_file
    from overflight.export.labels import bank_path, compile_file, save_bank
    from overflight.export.prompts import read_templates
    from overflight.runtime.bundle import Bundle, default_bundle

    started = time.perf_counter()
    opened = Bundle.open(bundle or default_bundle(), signed=False)
    file = read_label_file(labels, read_templates(templates or opened.manifest.templates or DEFAULT))
    with _Bar(shown=not as_json) as bar:
        compilation = compile_file(file, opened, bar.update)
    path = out or bank_path(labels)
    save_bank(compilation.bank, path)
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(_to_json(compilation, path, seconds))
    else:
        _show(compilation, path, seconds)


class _Bar:
    """A progress bar on standard error, for a terminal only."""

    def __init__(self, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, disable=not (shown and console.is_terminal), transient=True)
        self._task = self._progress.add_task("encoding prompts", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


def _to_json(compilation: Compilation, path: Path, seconds: float) -> str:
    bank = compilation.bank
    labels = [
        {
            **msgspec.to_builtins(row.label),
            "prompts": list(row.label.prompts),
            "encoded": row.prompts,
            "nearest": row.nearest,
            "cosine": row.cosine,
        }
        for row in compilation.rows
    ]
    content = {
        "bank": str(path),
        "sha256": bank.sha256,
        "name": bank.header.name,
        "model": bank.header.model,
        "tower": bank.header.tower,
        "templates": bank.header.templates,
        "labels": labels,
        "warnings": compilation.warnings,
        "seconds": seconds,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def _show(compilation: Compilation, path: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading, justify in (("label", "left"), ("group", "left"), ("prompts", "right"), ("nearest", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("cosine", justify="right")
    for row in compilation.rows:
        label = row.label
        group = "background" if label.background else label.group or ""
        cosine = "" if row.cosine is None else f"{row.cosine:.3f}"
        table.add_row(
            Text(label.text),
            Text(group),
            f"{row.prompts} {label.templates or 'sentence'}",
            Text(row.nearest or ""),
            cosine,
        )
    Console().print(table)
    for warning in compilation.warnings:
        click.echo(f"warning: {warning}", err=True)
    size = path.stat().st_size / 1000
    click.echo(
        f"{path}: {len(compilation.rows)} labels for {compilation.bank.header.model}, {size:.1f} kB, {seconds:.1f} s"
    )
