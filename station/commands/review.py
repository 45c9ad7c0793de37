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


@command.command("examples")
@click.argument("archive", type=_PATH)
@click.option("--state", type=click.Choice(["confirmed", "rejected"]), default="rejected", show_default=True)
@click.option("--label", help="Only findings that a reviewer gave this label.")
@click.option("-o", "--out", type=_PATH, required=True, help="The list to write (.txt).")
def examples_(archive: Path, state: str, label: str | None, out: Path) -> None:
    """List reviewed findings as examples or background of a label.

    \b
    overflight review examples archive --state rejected -o rejected.txt
    overflight labels --examples fire=fire/ --background rejected.txt -o fire.safetensors
    """
    import os

    from overflight.runtime.durable import write_atomically
    from overflight.runtime.errors import UsageError
    from overflight.station.archive import Archive
    from overflight.station.review.store import example_list

    if out.suffix.lower() != ".txt":
        raise UsageError(f"{out}: expected a list, such as {state}.txt")
    lines = example_list(Archive(archive), state, label)
    if not lines:
        raise UsageError(f"{archive}: no {state} findings" + (f" with the label {label}" if label else ""))
    prefix = Path(os.path.relpath(archive.resolve(), out.resolve().parent)).as_posix()
    write_atomically(out, "".join(f"{prefix}/{line}\n" for line in lines).encode())
    click.echo(f"{out}: {sum(line.count(',') + 1 for line in lines)} findings of {len(lines)} flights")
