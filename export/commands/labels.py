"""``overflight labels``: a label file becomes a label bank."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from overflight.export.prompts import DEFAULT, template_names
from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from overflight.export.labels import Compilation
    from overflight.runtime.bank import LabelBank


@click.command()
@click.argument("labels", type=click.Path(path_type=Path), required=False)
@click.option("--examples", multiple=True, metavar="LABEL=SOURCE", help="Make a label from examples; repeatable.")
@click.option(
    "--background", multiple=True, type=click.Path(path_type=Path), help="A folder of pictures that show no label."
)
@click.option("--with-text", is_flag=True, help="Count the label's own text as one more example.")
@click.option(
    "--prevalence",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of frames that show a label.",
)
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle; the default model's when left out.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where the bank goes; next to LABELS when left out.")
@click.option(
    "--templates",
    type=click.Choice(template_names()),
    help=f"The published forms for labels whose file names none; the model's own, else {DEFAULT}, when left out.",
)
@click.option("--no-defaults", is_flag=True, help="Leave out the model's own threshold and background.")
@click.option("--list", "listed", is_flag=True, help="List the label files that come with the package.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    labels: Path | None,
    bundle: Path | None,
    out: Path | None,
    templates: str | None,
    no_defaults: bool,
    as_json: bool,
    examples: tuple[str, ...],
    background: tuple[Path, ...],
    with_text: bool,
    prevalence: float,
    listed: bool,
) -> None:
    """Compile a label file into a label bank.

    LABELS is a .txt file with one label per line, or TOML with groups, templates, prompts, background and thresholds,
    or the name of a label file that comes with the package (--list shows them).
    Labels without a threshold get the model's own, and every bank its background for pictures without a view, where
    the bundle has them. Mistakes are listed with their lines; nothing is written then.

    With --examples, labels are made from examples (16 are a good start) and a background, and joined with those of
    LABELS, if given. A source is a folder of pictures, FLIGHT#120,130-150,160.4 (frames, and a tile), or a list of both
    (.txt). What cross-validation measured is printed; contradictory examples are refused.

    \b
    overflight labels scenes.txt --bundle models/bundle
    overflight labels flood -o flood.safetensors
    overflight labels --examples fire=fire/ --examples smoke=smoke/ --background other/ -o fire.safetensors
    """
    from overflight.export.label_file import read_label_file
    from overflight.export.labels import bank_path, compile_file, save_bank
    from overflight.export.prompts import read_templates
    from overflight.export.shipped_labels import find_labels
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.errors import UsageError

    if listed:
        _list(as_json=as_json)
        return
    if examples:
        _from_examples(labels, bundle, out, templates, examples, background, prevalence, with_text, as_json=as_json)
        return
    if labels is None:
        raise UsageError("no labels; name a label file, or folders of pictures with --examples")
    started = time.perf_counter()
    opened = Bundle.open(bundle or default_bundle(), signed=False)
    source = find_labels(labels)
    file = read_label_file(source, read_templates(templates or opened.manifest.templates or DEFAULT))
    with _Bar(shown=not as_json) as bar:
        compilation = compile_file(file, opened, bar.update, defaults=not no_defaults)
    path = out or (bank_path(labels) if source == labels else Path(f"{labels.name}.safetensors"))
    save_bank(compilation.bank, path)
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(_to_json(compilation, path, seconds))
    else:
        _show(compilation, path, seconds)


def _list(*, as_json: bool) -> None:
    from overflight.export.shipped_labels import purpose, shipped_names

    names = {name: purpose(name) for name in shipped_names()}
    if as_json:
        click.echo(msgspec.json.encode(names).decode())
        return
    for name, text in names.items():
        click.echo(f"{name:18}{text}")


def _from_examples(
    labels: Path | None,
    bundle: Path | None,
    out: Path | None,
    templates: str | None,
    examples: tuple[str, ...],
    background: tuple[Path, ...],
    prevalence: float,
    with_text: bool,
    *,
    as_json: bool,
) -> None:
    from overflight.export.encode import TextEncoder
    from overflight.export.example_bank import bank_from_examples, parse_examples
    from overflight.export.label_file import read_label_file
    from overflight.export.labels import compile_file, save_bank
    from overflight.export.prompts import read_templates
    from overflight.runtime.bundle import Bundle, default_bundle
    from overflight.runtime.errors import UsageError

    if out is None:
        raise UsageError("--examples: name the bank to write with -o, such as -o fire.safetensors")
    opened = Bundle.open(bundle or default_bundle(), signed=False)
    forms = read_templates(templates or opened.manifest.templates or DEFAULT)
    folders = parse_examples(examples)
    texts = {}
    if with_text:
        with TextEncoder(opened) as encoder:
            for label in folders:
                mean = encoder.encode(forms.fill(label)).mean(axis=0)
                texts[label] = mean / (mean @ mean) ** 0.5
    made = bank_from_examples(
        opened,
        folders,
        background,
        name=out.stem,
        text_bank=compile_file(read_label_file(labels, forms), opened).bank if labels else None,
        text_vectors=texts,
        prevalence=prevalence,
    )
    save_bank(made.bank, out)
    if as_json:
        click.echo(
            msgspec.json.encode({"bank": str(out), "sha256": made.bank.sha256, "labels": made.measured}).decode()
        )
        return
    for line in made.unreadable:
        click.echo(f"not read: {line}", err=True)
    for label, found in made.measured.items():
        curve = ", ".join(f"{point.shots}: {point.auroc:.2f} ± {point.spread:.2f}" for point in found.curve)
        click.echo(
            f"{label}: {found.examples} examples, {found.background} others, {found.method} probe; AUROC "
            f"{found.auroc:.3f}, recall {found.recall:.0%}, false alarms {found.false_positive_rate:.1%}"
        )
        click.echo(
            f"  where {found.prevalence:.1%} of frames show it, {found.precision:.0%} of alarms are right "
            f"({found.precision_low:.0%} to {found.precision_high:.0%}); AUROC by examples: {curve or 'too few'}"
        )
    click.echo(f"{out}: {len(made.bank)} labels for {made.bank.header.model}")


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
        "threshold": bank.header.threshold,
        "background": [label.text for label in bank.header.labels if label.background],
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
    click.echo(_decisions(compilation.bank))


def _decisions(bank: LabelBank) -> str:
    """Say what decides for labels without a threshold of their own."""
    from overflight.runtime.decisions.decide import LEAST_SCORE

    if bank.header.threshold is None:
        return (
            "no default threshold: without one of its own a label is reported only as the best of all, at a score of "
            f"{LEAST_SCORE:g} or more; fit thresholds with: overflight thresholds"
        )
    names = ", ".join(label.text for label in bank.header.labels if label.background and not label.prompts)
    return f"the model's own threshold {bank.header.threshold:g}, and background: {names or 'none'}"
