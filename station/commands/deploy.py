"""``overflight deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.station.commands.update import flight_options, show_history, show_outcome

if TYPE_CHECKING:
    from overflight.station.deploy.remote import Host


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="[BUNDLE] HOST")
@click.option("--bank", type=click.Path(path_type=Path), help="A label bank, with a bundle or alone.")
@click.option("--rollback", is_flag=True, help="Go back to the deployment before the current one.")
@click.option("--history", is_flag=True, help="List what was deployed there, and what failed.")
@click.option("--ssh", default="ssh", show_default=True, help="How the host is reached, such as 'ssh -p 2222'.")
@click.option("--program", default="overflight", show_default=True, help="Overflight there: 'sudo -n overflight'.")
@flight_options
def command(
    what: tuple[str, ...],
    bank: Path | None,
    rollback: bool,
    history: bool,
    ssh: str,
    program: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Deploy a bundle or a label bank to an aircraft over ssh, with rollback.

    It is copied, verified there, its engines are built and checked, and then it is switched to in one step; where the
    flight does not become fresh, it is switched back. Nothing is deployed while the autopilot says armed or a flight
    goes on.

    \b
    overflight deploy base-256/ pilot@survey-7
    overflight deploy --bank scenes.safetensors pilot@survey-7
    overflight deploy --rollback pilot@survey-7
    """
    from overflight.runtime.errors import UsageError
    from overflight.station.deploy.deployments import Action
    from overflight.station.deploy.remote import Host
    from overflight.station.deploy.update import Outcome

    host = Host(what[-1], ssh, program)
    passed = _passed(**given)
    bundle = Path(what[0]) if len(what) == 2 else None
    if len(what) > 2 or (rollback or history) == bool(bundle or bank) or (rollback and history):
        raise UsageError("expected BUNDLE HOST, --bank BANK HOST, --rollback HOST or --history HOST; see --help")
    if history:
        show_history(host.update(list[Action], "--history", *passed), as_json=as_json)
    elif rollback:
        show_outcome(host.update(Outcome, "--rollback", *passed), as_json=as_json)
    else:
        show_outcome(host.update(Outcome, *_upload(host, bundle, bank, passed), *passed), as_json=as_json)


def _upload(host: Host, bundle: Path | None, bank: Path | None, passed: list[str]) -> list[str]:
    """Check what is deployed here first, copy it over, and return the arguments of the update there."""
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle
    from overflight.station.deploy.remote import Prepared

    opened = None if bundle is None else Bundle.open(bundle, signed=False)
    loaded = None if bank is None else LabelBank.load(bank)
    size = 0
    if opened is not None:
        opened.verify()
        size += sum((opened.directory / name).stat().st_size for name in opened.manifest.files)
        if loaded is not None:
            loaded.check_fits(opened.manifest, source=str(bank))
    prepared = host.update(Prepared, "--prepare", "" if opened is None else opened.sha256, str(size), *passed)
    arguments = []
    if opened is not None:
        arguments += ["--from", host.upload_bundle(opened, prepared)]
    if loaded is not None and bank is not None:
        arguments += ["--bank", host.upload_bank(bank, loaded, prepared)]
    return arguments


def _passed(**given: Any) -> list[str]:
    flags = {"no_build": "--no-build", "force": "--force"}
    values = {"within_s": "--within", "health": "--health", "restart": "--restart", "autopilot": "--autopilot",
              "home": "--home"}  # fmt: skip
    passed = [flag for name, flag in flags.items() if given[name]]
    for name, option in values.items():
        if given[name] is not None:
            passed += [option, str(given[name])]
    return passed
