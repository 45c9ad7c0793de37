"""overflight fetch: a published model by name -> bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from overflight.export.catalogue import PublishedModel


@click.command()
@click.argument("name", required=False)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--from", "place", help="A mirror's URL, or a directory with a copy of the repository.")
@click.option("--accept-licence", is_flag=True, help="Accept the licence that is shown, without being asked.")
@click.option("--prove", is_flag=True, help="Compare with open_clip or transformers, loading included.")
@click.option("--replace", is_flag=True, help="Replace an existing bundle, in one step.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    name: str | None,
    bundle: Path | None,
    place: str | None,
    accept_licence: bool,
    prove: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Bring a published model by name: download, export and prove it.

    Without NAME the known models are listed. BUNDLE is the new bundle's directory, ./NAME when left out. An interrupted
    download resumes. The bundle records repository, commit, hashes and licence, and its labels use the templates that
    the model's authors published.

    \b
    Examples:
      overflight fetch
      overflight fetch git-rsclip
      overflight fetch georsclip-h14 ./h14 --from /media/stick/models --accept-licence
    """
    from overflight.export.assemble import check_target, export
    from overflight.export.catalogue import fetch_model, find_model, read_catalogue
    from overflight.export.commands.export import show
    from overflight.export.fetch import Repository
    from overflight.runtime.progress import shown_progress

    if name is None:
        _list(read_catalogue(), as_json=as_json)
        return
    model, target = find_model(name), bundle or Path(name)
    check_target(target, replace=replace)
    _accept(name, model, accepted=accept_licence)
    repository = Repository(place)
    with shown_progress() as report:
        fetched = fetch_model(model, repository, lambda share: report("hashing the files", share))
        made = export(
            fetched.source,
            target,
            name=name,
            replace=replace,
            prove_outside=prove,
            reading=fetched.reading,
            origin=fetched.origin,
            templates=model.templates,
            report=report,
        )
    if as_json:
        click.echo(json.dumps({"bundle": str(target), **msgspec.to_builtins(made.manifest)}, indent=1))
    else:
        show(target, made)


def _accept(name: str, model: PublishedModel, *, accepted: bool) -> None:
    """Show the licence and ask. Raises UsageError where nobody can answer, Abort for no."""
    from overflight.runtime.errors import UsageError

    click.echo(f"{model.title}\nlicence: {model.licence}\nread it: {model.see}", err=True)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{name}: its licence was not accepted; read {model.see} and give --accept-licence")
    click.confirm("Do you accept it?", abort=True, err=True)


def _list(table: dict[str, PublishedModel], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(table), indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for title in ("name", "model", "licence"):
        shown.add_column(title)
    for name, model in table.items():
        shown.add_row(name, model.title, model.licence)
    Console().print(shown)
