"""``overflight update``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.station.deploy.update import Outcome, Update

FLIGHT_OPTIONS = (
    click.option("--within", "within_s", type=Finite(min=1), default=120.0, show_default=True,
                 help="Seconds in which the flight must become fresh, else it is switched back."),
    click.option("--no-build", is_flag=True, help="Do not build engines: use what is built, or the fp32 reference."),
    click.option("--force", is_flag=True, help="Also while armed, or while a flight goes on."),
    click.option("--health", type=click.IntRange(1, 65535), default=9180, show_default=True,
                 help="The flight's health port."),
    click.option("--restart", help="The command that restarts the flight; systemd's service when left out."),
    click.option("--autopilot", help="Where to hear the autopilot, if the flight does not: udpin:0.0.0.0:14550."),
    click.option("--home", type=click.Path(path_type=Path), help="Holds the deployments; the service's when left out."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)  # fmt: skip


def flight_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that deploy passes on to update."""
    for decorate in reversed(FLIGHT_OPTIONS):
        function = decorate(function)
    return function


@click.command()
@click.option("--from", "bundle", help="A bundle's folder, or its address, such as https://example.org/base-256/.")
@click.option("--bank", help="A label bank's file or address.")
@click.option("--rollback", is_flag=True, help="Go back to the deployment before the current one.")
@click.option("--history", is_flag=True, help="List what was deployed, and what failed.")
@click.option("--resume", is_flag=True, help="Undo a deployment that was interrupted; the service does this at start.")
@click.option("--ca", help="The certificate authority of the server, a PEM file.")
@click.option("--cert", help="Our certificate, where the server asks for one, a PEM file.")
@click.option("--key", help="The key of our certificate.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with a token that the server asks for.")
@click.option("--prepare", type=(str, int), hidden=True)
@flight_options
def command(
    bundle: str | None, bank: str | None, rollback: bool, history: bool, resume: bool, as_json: bool, **given: Any
) -> None:
    """Update the bundle or label bank on this machine, and roll back if the flight fails.

    The aircraft's side of deploy, and for aircraft that nobody can reach: it downloads, checks the signature and every
    file, builds the engines, switches in one step, and switches back where the flight does not become fresh.

    \b
    overflight update --from https://example.org/base-256/
    overflight update --bank scenes.safetensors
    overflight update --rollback
    """
    import os

    from overflight.runtime.errors import UsageError
    from overflight.station.deploy.owner import as_owner

    prepare = given.pop("prepare")
    chosen = [bool(bundle or bank), rollback, history, resume, prepare is not None]
    if sum(chosen) != 1:
        raise UsageError("expected one of --from or --bank, --rollback, --history and --resume; see --help")
    home = given.pop("home") or _default_home()
    os.environ["OVERFLIGHT_HOME"] = str(home.absolute())
    with as_owner(home.absolute()):
        update = _update(home.absolute(), **given)
        if prepare is not None:
            _show_prepared(update, *prepare)
        elif history:
            show_history(update.deployments.history(), as_json=as_json)
        elif resume:
            show_outcome(update.resume(), as_json=as_json)
        else:
            show_outcome(update.roll_back() if rollback else update.take(bundle, bank), as_json=as_json)


def show_outcome(outcome: Outcome | None, *, as_json: bool) -> None:
    """Print what was done; a connection that is gone by then is no reason to fail."""
    import msgspec

    if outcome is None:
        _say("nothing to undo" if not as_json else "null")
    elif as_json:
        _say(msgspec.json.encode(outcome).decode())
    else:
        what = {"deployed": "in use", "unchanged": "in use already", "rolled back": "in use again"}[outcome.action]
        for note in outcome.notes:
            _say(note)
        proof = f"; {outcome.proof}" if outcome.proof else ""
        how = f"; {outcome.restarted}" if outcome.restarted else "; nothing was restarted, the next flight uses it"
        _say(f"deployment {outcome.deployment.title} is {what}{proof}{'' if outcome.action == 'unchanged' else how}")


def show_history(actions: list[Any], *, as_json: bool) -> None:
    """Print the history, oldest first."""
    import time

    import msgspec

    if as_json:
        _say(msgspec.json.encode(actions).decode())
        return
    for action in actions:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(action.utc_s))
        reason = f": {action.reason}" if action.reason else ""
        _say(f"{when}  {action.action:11}  {action.deployment.title}  {action.by}{reason}")
    if not actions:
        _say("nothing was deployed yet")


def _update(home: Path, **given: Any) -> Update:
    from overflight.runtime.links.tls import TlsFiles
    from overflight.runtime.signatures.trust import TrustedKeys
    from overflight.station.deploy.fetch import Web
    from overflight.station.deploy.running import Running
    from overflight.station.deploy.update import Update

    token_file = given["token_file"]
    token = None if token_file is None else token_file.read_text().strip()
    trusted = bool(TrustedKeys.load(home=home).keys)
    return Update(
        home,
        Running(given["health"], given["restart"], given["autopilot"]),
        Web(TlsFiles(given["ca"], given["cert"], given["key"]), token, trusted=trusted),
        given["within_s"],
        build=not given["no_build"],
        force=given["force"],
        report=lambda text: _say(text, err=True),
    )


def _show_prepared(update: Update, sha256: str, size: int) -> None:
    import shutil

    import msgspec

    from overflight import __version__
    from overflight.station.deploy.remote import Prepared
    from overflight.station.deploy.staging import prepare

    if not update.force:
        update.running.refuse_in_flight(update.home / "flights")
    has_bundle = prepare(update.deployments, sha256, size)
    user = _switched_user()
    incoming = str(update.deployments.incoming)
    has_rsync = shutil.which("rsync") is not None
    _say(msgspec.json.encode(Prepared(incoming, user, has_bundle, has_rsync, __version__)).decode())


def _switched_user() -> str | None:
    """Return the user that root has become, or None."""
    import os
    import pwd

    return None if os.getuid() == os.geteuid() else pwd.getpwuid(os.geteuid()).pw_name


def _default_home() -> Path:
    import os

    from overflight.jetson.service import installed_home
    from overflight.runtime.paths import home

    return home() if os.environ.get("OVERFLIGHT_HOME") else installed_home() or home()


def _say(text: str, *, err: bool = False) -> None:
    with suppress(OSError):
        click.echo(text, err=err)
