"""``overflight review``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import click

_PATH: Any = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Confirm or reject what a search or an event found, and merge reviews."""


@command.command("mark")
@click.argument("archive", type=_PATH)
@click.argument("findings", nargs=-1, required=True)
@click.option("--state", type=click.Choice(["confirmed", "rejected", "unsure"]), required=True, help="The decision.")
@click.option("--reviewer", default=getpass.getuser, help="Your name; the user's name if left out.")
@click.option("--comment", default="", help="A remark that is kept with it.")
@click.option("--label", help="What the finding shows, where that is not what was searched.")
def mark_(archive: Path, findings: tuple[str, ...], state: Any, reviewer: str, comment: str, label: str | None) -> None:
    """Write a decision about FINDINGS, by the numbers that overflight search prints.

    \b
    overflight review mark archive 3fa09c11-120 --state confirmed --comment "tent next to the river"
    """
    from overflight.station.archive import Archive
    from overflight.station.review import mark

    for number in findings:
        mark(Archive(archive), number, state, reviewer, comment=comment, label=label)
        click.echo(f"{number}: {state} by {reviewer}")


@command.command("list")
@click.argument("archive", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print each finding as a JSON line.")
def list_(archive: Path, as_json: bool) -> None:
    """List the reviewed findings of ARCHIVE."""
    import msgspec

    from overflight.station.archive import Archive
    from overflight.station.review import findings

    for one in findings(Archive(archive)):
        if as_json:
            click.echo(msgspec.json.encode(one).decode())
            continue
        said = "; ".join(
            f"{review.reviewer}: {review.state}" + (f" ({review.comment})" if review.comment else "")
            for review in one.reviews
        )
        click.echo(f"{one.number}  {one.state}  {said}")


@command.command("merge")
@click.argument("archive", type=_PATH)
@click.argument("other", type=_PATH)
def merge_(archive: Path, other: Path) -> None:
    """Take the decisions of OTHER, a copy of the archive or of its review folder, into ARCHIVE."""
    from overflight.station.archive import Archive
    from overflight.station.review import findings, merge

    target = Archive(archive)
    new = merge(target, other)
    disputed = [one.number for one in findings(target) if one.state == "disputed"]
    click.echo(f"{new} new decisions; disputed: {', '.join(disputed) or 'none'}")
