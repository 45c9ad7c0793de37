"""``overflight service``: run from boot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.jetson import service as room

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write into the file system of an image instead of this machine.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
_WHAT = (
    click.argument("source"),
    click.option("--labels", type=click.Path(path_type=Path), help="A label bank; the bundle's own when left out."),
    click.option("--bundle", type=click.Path(path_type=Path), help="A bundle; the default model's when left out."),
    click.option("--deployed", is_flag=True, help="Use the bundle and the labels of overflight deploy."),
    click.option("--home", type=click.Path(path_type=Path), default=room.HOME, help="Holds flights and engines."),
    click.option("--user", default="overflight", show_default=True, help="The service's user; created if missing."),
    click.option("--watchdog", "watchdog_s", type=click.IntRange(min=2), default=30, show_default=True,
                 help="Seconds without a frame until it is restarted."),
    click.option("--health", type=click.IntRange(1, 65535), default=room.PORT, show_default=True,
                 help="Loopback port of the health server."),
    click.option("--device", "devices", multiple=True,
                 help="A further device that may be used, such as /dev/ttyTHS1 or char-ttyS; repeatable."),
    click.argument("options", nargs=-1),
)  # fmt: skip


def _what(function: Callable[..., None]) -> Callable[..., None]:
    for decorate in reversed(_WHAT):
        function = decorate(function)
    return function


class _NotRoot(click.ClickException):
    exit_code = 3


@click.group()
def command() -> None:
    """Run from boot: write, install or remove the systemd service.

    \b
    sudo overflight service install csi://0 --labels bank.safetensors
    """


@command.command()
@_what
@_ROOT
@_JSON
def install(root: Path, as_json: bool, **what: Any) -> None:
    """Install the service and start it; repeat it with other options to change it.

    OPTIONS after -- are further options of overflight run.

    \b
    sudo overflight service install /dev/video0 --labels bank.safetensors
    sudo overflight service install csi://0 --deployed -- --pose udpin:0.0.0.0:14550
    """
    _tell(lambda: room.install(_service(**what), root), as_json=as_json)


@command.command()
@_what
@_JSON
def show(as_json: bool, **what: Any) -> None:
    """Print the unit that install would write.

    \b
    overflight service show /dev/video0 > overflight.service
    """
    unit = room.render(_service(**what))
    click.echo(json.dumps({"unit": unit}) if as_json else unit, nl=as_json)


@command.command()
@_ROOT
@_JSON
def remove(root: Path, as_json: bool) -> None:
    """Stop the service and delete it; flights and engines are kept.

    \b
    sudo overflight service remove
    """
    _tell(lambda: room.remove(root), as_json=as_json)


def _service(**what: Any) -> room.Service:
    try:
        return room.Service(**what)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _tell(act: Callable[[], list[str]], *, as_json: bool) -> None:
    try:
        done = act()
    except PermissionError as error:
        raise _NotRoot(f"{error.filename}: {error.strerror}; run it with sudo") from error
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps({"done": done}) if as_json else "\n".join(done or ["nothing to do"]))
