"""``overflight similarity``: how well texts fit one picture."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle; the default model's when left out.")
@click.option("--template", default="{}", show_default=True, help="What each text is set into, with one {}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(image: Path, texts: tuple[str, ...], bundle: Path | None, template: str, as_json: bool) -> None:
    """Compare a picture with texts.

    Prints the cosine of every text, and the score that the towers were trained to give. Texts are taken as they are.

    \b
    overflight similarity harbour.jpg "ships in a harbour" "an empty beach"
    """
    from overflight.export.similarity import compare
    from overflight.runtime.bundle import Bundle, default_bundle

    answers = compare(image, texts, Bundle.open(bundle or default_bundle(), signed=False), template=template)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answers), indent=2).decode())
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("text")
    table.add_column("cosine", justify="right")
    table.add_column("share" if answers[0].score is None else "score", justify="right")
    for answer in answers:
        shown = answer.share if answer.score is None else answer.score
        table.add_row(Text(answer.prompt), f"{answer.cosine:.4f}", f"{shown:.4f}")
    Console().print(table)
    for answer in answers:
        if answer.unknown:
            click.echo(f"warning: {answer.text!r}: the text tower cannot read {answer.unknown!r}", err=True)
