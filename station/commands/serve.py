"""``overflight serve``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.station.serve.desk import Settings

_PATH: Any = click.Path(path_type=Path)
PORT = 8440


@click.command()
@click.argument("archive", type=_PATH, required=False)
@click.option(
    "--flights", type=_PATH, multiple=True, help="A flight, or a folder of flights, to show live; repeatable."
)
@click.option("--aircraft", multiple=True, metavar="URL", help="A flight's health link, http://HOST:PORT; repeatable.")
@click.option("--bundle", type=_PATH, help="The bundle whose towers made the flights; the default model's if left out.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve on.")
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True)
@click.option("--name", "names", multiple=True, help="A host name that browsers use for this machine; repeatable.")
@click.option("--token-file", type=_PATH, help="A file with the token; made by itself where other machines can reach.")
@click.option("--check", is_flag=True, help="Check the options, archive, bundle and port, and exit.")
@click.option("--demo", is_flag=True, help="Show a small archive that is made on the spot.")
def command(
    archive: Path | None,
    flights: tuple[Path, ...],
    aircraft: tuple[str, ...],
    bundle: Path | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    token_file: Path | None,
    check: bool,
    demo: bool,
) -> None:
    """Serve the page of a field station: live flights, search, review, upload, labels from choices, a map.

    ARCHIVE is a directory made by overflight archive add. Nothing on the page needs the internet.

    \b
    overflight serve archive
    overflight serve archive --flights flights/ --aircraft http://127.0.0.1:9464
    overflight serve --demo
    """
    from overflight.runtime.errors import missing_extra

    try:
        from overflight.station.serve.app import serve
    except ImportError as error:
        raise missing_extra("starlette", "serve") from error
    from overflight.station.serve.desk import Desk, Settings

    if demo:
        made = _demo()
        archive, flights = archive or made / "archive", (*flights, made)
    token = _token(host, token_file)
    settings = Settings(archive, bundle, flights, _links(aircraft), host, port, names, token)
    address = f"http://{'[' + host + ']' if ':' in host else host}:{port}/"
    if check:
        _check(settings, given=token_file is not None)
        click.echo(f"{address}: ready")
        return
    click.echo(f"{address}  (stop with Ctrl-C)")
    if token is not None:
        click.echo(f"token: {token}" if token_file is None else f"token: in {token_file}")
    serve(Desk(settings))


def _check(settings: Settings, *, given: bool) -> None:
    """Raise an error for what a service could not serve: its reader is not there to see it."""
    import socket
    from contextlib import closing

    from overflight.runtime.errors import UsageError
    from overflight.station.serve.desk import Desk

    if settings.token is not None and not given:
        raise UsageError(f"--host {settings.host}: a service needs its token in a file; give one with --token-file")
    with closing(Desk(settings)) as desk:
        if settings.archive is not None:
            desk.archive.flights()
        for flight in settings.flights:
            if not flight.is_dir():
                raise UsageError(f"--flights {flight}: no such folder; make it, or leave it out")
        _ = desk.bundle
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((settings.host, settings.port))
    except OSError as error:
        raise UsageError(f"--port {settings.port}: {error.strerror}; give another with --port") from error


def _links(given: tuple[str, ...]) -> tuple[str, ...]:
    from urllib.parse import urlsplit

    from overflight.runtime.errors import UsageError

    for one in given:
        parts = urlsplit(one)
        if parts.scheme != "http" or not parts.hostname or parts.port is None or parts.path.strip("/"):
            raise UsageError(f"--aircraft {one}: expected a flight's health link such as http://127.0.0.1:9464")
    return tuple(one.rstrip("/") for one in given)


def _token(host: str, path: Path | None) -> str | None:
    """Return the token: none on loopback unless a file is given, else the file's, else a new one."""
    import secrets

    from overflight.runtime.errors import UsageError

    if path is not None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {path}: {error}") from error
        if len(token) < 16:
            raise UsageError(f"--token-file {path}: {len(token)} characters; expected 16 or more")
        return token
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return None if local else secrets.token_urlsafe(18)


def _demo() -> Path:
    """Return the demo's flight with its archive, made if it is not there."""
    from overflight.runtime.paths import home
    from overflight.station.demonstrate import demonstrate, load

    flight = home() / "demo-flight"
    if not (flight / "archive" / "index.sqlite").is_file():
        click.echo(f"making the demo's flight and archive in {flight}")
        with load() as overflight:
            demonstrate(overflight, flight, replace=True)
    return flight
