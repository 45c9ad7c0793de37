"""The doctor command: is this machine fit for a flight?"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from overflight.runtime.bundle import default_bundle
from overflight.runtime.doctor.checks import Health, examine


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Where flights will be written.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="Check a copy of a device's file system instead of this machine.",
)
@click.option("--user", help="The user that will run the flight.  [default: this user]")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(bundle: Path | None, out: Path, root: Path, user: str | None, as_json: bool) -> None:
    """Check that this machine is fit for a flight, and print the fixes.

    Exits with 3 if a flight would fail.

    Example: overflight doctor my-bundle --out /var/lib/overflight/flights
    """
    home = None if root == Path("/") else root / "var/lib/overflight"
    health = examine(bundle or default_bundle(), out, root=root, home=home, user=user)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"fit": health.fit, "checks": health.checks}), indent=1))
    else:
        _show(health)
    if not health.fit:
        raise SystemExit(3)


def _show(health: Health) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in health.checks:
        verdict = f"[{colours[check.verdict]}]{check.verdict:4}[/]"
        console.print(f"{verdict}  {check.name:12}  ", end="")
        console.print(check.found, markup=False)
        if check.cure:
            console.print(f"                    → {check.cure}", markup=False)
    console.print("fit for a flight" if health.fit else "not fit for a flight: fix what failed, from the top")
