"""The service command: fly from boot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.jetson import page_service as pages
from overflight.jetson import service as room
from overflight.jetson.checks import parse_groups
from overflight.jetson.credentials import copy_credential, separate
from overflight.jetson.page_service import PageService
from overflight.jetson.sysfs import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write into the file system of an image instead of this machine.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
_NAME = click.option("--name", default="", help="One of several cameras, such as front: overflight@front.service.")
_HOME = click.option("--home", type=click.Path(path_type=Path), default=room.HOME, help="Holds flights and engines.")
_USER = click.option("--user", default="overflight", show_default=True, help="The user that runs it; made if missing.")
_FLIGHT = (
    click.argument("source", required=False),
    click.argument("options", nargs=-1),
    click.option("--config", type=click.Path(path_type=Path), help="A configuration: see overflight run --config."),
    click.option("--labels", type=click.Path(path_type=Path), help="A label bank.  [default: the bundle's]"),
    click.option("--bundle", type=click.Path(path_type=Path), help="A bundle.  [default: the default model's]"),
)
_RUNS = (
    _NAME,
    _HOME,
    _USER,
    click.option(
        "--watchdog",
        "watchdog_s",
        type=click.IntRange(min=2),
        default=30,
        show_default=True,
        help="Restart after so many seconds without a frame.",
    ),
    click.option("--deployed", is_flag=True, help="Use the bundle and the labels of overflight deploy."),
    click.option(
        "--device",
        "devices",
        metavar="NODE",
        multiple=True,
        help="Allow a further device, such as /dev/ttyTHS1 or char-ttyS; repeat.",
    ),
)


def _with(options: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _Missing(click.ClickException):
    exit_code = 3


@click.group()
def command() -> None:
    """Install, show or remove the systemd service that flies from boot.

    \b
    sudo overflight service install --config flight.toml
    sudo overflight service install --config front.toml --name front
    """


@command.command()
@_with(_FLIGHT)
@_with(_RUNS)
@click.option(
    "--health",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    help=f"Port of the health server.  [default: the configuration's, or the first free one from {room.PORT}]",
)
@click.option("--serve", is_flag=True, help="Install the page of a field station instead: SOURCE is its archive.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the page.  [default: that of overflight serve]")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="The page's token; only root need be able to read it."
)
@click.option("--dry-run", is_flag=True, help="Check everything and print what would be done.")
@click.option("--no-check", is_flag=True, help="Skip the check of source, bank, bundle, engine and links.")
@_ROOT
@_JSON
def install(
    source: str | None,
    options: tuple[str, ...],
    config: Path | None,
    labels: Path | None,
    bundle: Path | None,
    health: int | None,
    serve: bool,
    port: int | None,
    token_file: Path | None,
    dry_run: bool,
    no_check: bool,
    root: Path,
    as_json: bool,
    **runs: Any,
) -> None:
    """Install the service and start it; install it again to change it.

    Everything is checked first, as the service's user: the source must deliver a frame, the bundle, the bank and the
    engine must load, and the links' addresses must be valid. Nothing is written if a check fails. OPTIONS after --
    are further options of overflight run.

    \b
    sudo overflight service install /dev/video0 --labels bank.safetensors
    sudo overflight service install --config flight.toml
    sudo overflight service install csi://0 --deployed -- --pose udpin:0.0.0.0:14550
    sudo overflight service install --serve archive --port 8440 -- --flights /var/lib/overflight/flights
    """

    def act() -> list[str]:
        if not hasattr(os, "fchmod"):
            raise _Missing("no systemd here; install the service on the aircraft, which runs Linux")
        if serve:
            for given, option in ((config, "config"), (labels, "labels"), (health, "health")):
                if given is not None:
                    raise click.UsageError(f"--{option} is for flights; leave it out with --serve")
            return _page(source, options, bundle, port, token_file, root, runs, dry_run=dry_run, no_check=no_check)
        if port or token_file:
            raise click.UsageError("--port and --token-file are for --serve; the port of a flight is --health")
        service = room.Service(**runs)
        here = [*([] if source is None else [source]), *options]
        files = _files(service, config, labels, bundle)
        if config is None and (not here or here[0].startswith("-")):
            raise click.UsageError("no source; name one, or a configuration with --config")
        if health is not None or not _has_port(config, options):
            files += ["--health", str(health or room.free_port(service, root))]
        there = not service.deployed or _deployment(service).exists()
        flight = _configuration(service, [*here, *files], check=root == Path("/") and not no_check and there)
        unchecked = [] if there else ["not checked: nothing is deployed yet; bring a bundle with overflight deploy"]
        return [*unchecked, *room.install(service, flight, root, dry_run=dry_run)]

    _act(act, as_json=as_json)


@command.command()
@_with(_RUNS)
@_JSON
def show(as_json: bool, **runs: Any) -> None:
    """Print the unit that install would write.

    \b
    overflight service show > overflight.service
    """
    try:
        unit = room.render(room.Service(**runs))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps({"unit": unit}) if as_json else unit, nl=as_json)


@command.command()
@_NAME
@click.option("--purge", is_flag=True, help="Delete its flights and engines too.")
@click.option("--serve", is_flag=True, help="Remove the page of a field station.")
@_ROOT
@_JSON
def remove(name: str, purge: bool, serve: bool, root: Path, as_json: bool) -> None:
    """Stop the service and delete all that install made; flights and engines stay without --purge.

    \b
    sudo overflight service remove
    sudo overflight service remove --name front
    sudo overflight service remove --serve
    """
    if serve and name:
        raise click.UsageError("--serve: the page has no --name; remove them one by one")

    def act() -> list[str]:
        return pages.remove(root, purge=purge) if serve else room.remove(room.Service(name), root, purge=purge)

    _act(act, as_json=as_json)


def _files(service: room.Service, config: Path | None, labels: Path | None, bundle: Path | None) -> list[str]:
    """Return the options of ``overflight run`` that name files. Links are kept: an update moves them."""
    if service.deployed and (labels or bundle):
        raise click.UsageError("--deployed: the deployment brings bundle and labels; leave out --bundle and --labels")
    if service.deployed:
        bundle, labels = _deployment(service) / "bundle", _deployment(service) / "bank.safetensors"
    given = ["--watch-bank"] if service.deployed else []
    for option, path in (("--config", config), ("--labels", labels), ("--bundle", bundle)):
        given += [] if path is None else [option, str(path.absolute())]
    return given


def _deployment(service: room.Service) -> Path:
    return service.home / "deployments/current"


def _has_port(config: Path | None, options: tuple[str, ...]) -> bool:
    """Whether a configuration or an option names the health server's port."""
    lines = "" if config is None else text(config) or ""
    return re.search(r"^\s*health\s*=", lines, re.MULTILINE) is not None or any(
        option.partition("=")[0] == "--health" for option in options
    )


def _configuration(service: room.Service, arguments: list[str], *, check: bool) -> str:
    """Let ``overflight run`` print the flight's configuration, paths absolute, and check it."""
    config = _run(service, [*arguments, "--print-config"], {})
    if check:
        _check(service, config)
    return config


def _check(service: room.Service, config: str) -> None:
    """Check a flight as the service's user, with the files as systemd will hand them over.

    They belong to root alone, so that user gets copies, in memory, for as long as the check runs.
    """
    config, secrets = separate(config)
    identity = _identity(service.user) if os.geteuid() == 0 else {}
    with _copies(secrets, identity) as folder:
        (folder / "flight.toml").write_text(config, encoding="utf-8")
        _given(folder, identity)
        _run(service, ["--config", str(folder / "flight.toml"), "--print-config", "--check"], identity)


def _run(service: room.Service, arguments: list[str], identity: dict[str, Any]) -> str:
    command = [str(room.program_path()), "run", *arguments]
    return _checked(command, {"OVERFLIGHT_HOME": str(service.home)}, identity, service.user)


def _checked(command: list[str], environment: dict[str, str], identity: dict[str, Any], user: str) -> str:
    """Run a command and return what it printed; its failure is ours, with its reason and exit code."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | environment, **identity
        )
    except OSError as error:
        raise _Missing(
            f"{command[0]}: {error.strerror} for the user {user}; install overflight where every user can read"
        ) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        kind = {2: click.UsageError, 3: _Missing}.get(done.returncode, click.ClickException)
        raise kind(reason.removeprefix("overflight: "))
    return str(done.stdout)


def _page(
    source: str | None,
    options: tuple[str, ...],
    bundle: Path | None,
    port: int | None,
    token_file: Path | None,
    root: Path,
    runs: dict[str, Any],
    *,
    dry_run: bool,
    no_check: bool,
) -> list[str]:
    """Install the page; ``source`` is its archive, and ``options`` are further ones of ``overflight serve``."""
    if runs["name"] or runs["deployed"] or runs["devices"]:
        raise click.UsageError("--name, --deployed and --device are for flights; leave them out with --serve")
    archive = None if source is None or source.startswith("-") else Path(source).absolute()
    arguments = [*([] if source is None else [str(archive or source)]), *map(_absolute, options)]
    arguments += [] if bundle is None else ["--bundle", str(bundle.absolute())]
    arguments += [] if port is None else ["--port", str(port)]
    token = None if token_file is None else token_file.absolute()
    page = PageService(tuple(arguments), archive, token, runs["home"], runs["user"])
    if root == Path("/") and not no_check:
        _check_page(page)
    return pages.install(page, root, dry_run=dry_run)


def _absolute(argument: str) -> str:
    """Make a path that exists absolute: the service runs in another folder. Addresses and options stay as they are."""
    return str(Path(argument).absolute()) if not argument.startswith("-") and Path(argument).exists() else argument


def _check_page(page: PageService) -> None:
    """Let ``overflight serve`` check its options as the service's user, with a copy of the token if it has one."""
    identity = _identity(page.user) if os.geteuid() == 0 else {}
    asked = [str(room.program_path()), "serve", *page.arguments, "--check"]
    with _copies({} if page.token_file is None else {"token": page.token_file}, identity) as folder:
        token = [] if page.token_file is None else ["--token-file", str(folder / "token")]
        _checked([*asked, *token], {"OVERFLIGHT_HOME": str(page.home)}, identity, page.user)


@contextmanager
def _copies(secrets: dict[str, Path], identity: dict[str, Any]) -> Iterator[Path]:
    """Copy files that belong to root alone for the service's user, in memory, for as long as the block runs."""
    memory = Path("/run") if identity and os.access("/run", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="overflight-", dir=memory) as place:
        folder = Path(place)
        for name, path in secrets.items():
            copy_credential(path, folder / name)
        yield _given(folder, identity)


def _given(folder: Path, identity: dict[str, Any]) -> Path:
    """Give a folder and its files to the service's user, if this is root."""
    if identity:
        for path in (folder, *folder.iterdir()):
            os.chown(path, identity["user"], identity["group"])
    return folder


def _identity(user: str) -> dict[str, Any]:
    """Return what subprocess needs to run as the service's user, or as nobody where that user is still to be made."""
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        entry = pwd.getpwnam("nobody")
    groups = parse_groups(text(Path("/etc/group")) or "")
    return {
        "user": entry.pw_uid,
        "group": entry.pw_gid,
        "extra_groups": [name for name in room.GROUPS if name in groups],
    }


def _act(act: Callable[[], list[str]], *, as_json: bool) -> None:
    try:
        done = act()
    except PermissionError as error:
        raise _Missing(f"{error.filename}: {error.strerror}; run it with sudo") from error
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps({"done": done}) if as_json else "\n".join(done or ["nothing to do"]))
