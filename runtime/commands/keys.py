"""``overflight keys``."""

from __future__ import annotations

from pathlib import Path

import click

_PASSWORD_FILE = click.option(
    "--password-file", type=click.Path(path_type=Path), help="Read the password from this file instead of asking."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def command() -> None:
    """Make signing keys, and choose which keys this machine trusts.

    Once a key is trusted, unsigned or changed bundles and label banks are refused. See docs/deployment.md.

    \b
    overflight keys new survey.key
    sudo overflight keys trust survey.pub
    """


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-password", is_flag=True, help="Do not encrypt the secret key: for a build server's secret store.")
@_PASSWORD_FILE
@_JSON
def new(path: Path, no_password: bool, password_file: Path | None, as_json: bool) -> None:
    """Make a key pair: PATH is the secret key, PATH with the suffix .pub the public one.

    The files have minisign's format. Keep the secret key on the ground, never on an aircraft or a web server.

    \b
    overflight keys new survey.key
    """
    import msgspec

    from overflight.runtime.errors import UsageError
    from overflight.runtime.signatures.secret_key import SecretKey, save_pair
    from overflight.runtime.signing import refuse_on_board

    refuse_on_board()
    if path.suffix == ".pub":
        raise UsageError(f"{path}: .pub is the public key's suffix; name the secret key, such as survey.key")
    password = None if no_password else ask_password(password_file, confirm=True)
    key = SecretKey.make()
    public = save_pair(key, path, password)
    if as_json:
        click.echo(msgspec.json.encode({"key": key.public.name, "secret": str(path), "public": str(public)}))
    else:
        click.echo(f"key {key.public.name}: {path} (secret, keep it on the ground), {public} (for the aircraft)")


@command.command()
@click.argument("public", type=click.Path(path_type=Path))
@_JSON
def trust(public: Path, as_json: bool) -> None:
    """Trust a public key on this machine.

    The key is copied to /etc/overflight/trusted-keys when run as root, else to $OVERFLIGHT_HOME/trusted-keys.

    \b
    sudo overflight keys trust survey.pub
    """
    import msgspec

    from overflight.runtime.signatures.trust import trust_key

    key, place = trust_key(public)
    if as_json:
        click.echo(msgspec.json.encode({"key": key.name, "path": str(place)}))
    else:
        click.echo(f"key {key.name} is trusted ({place}); content without its signature is refused from now on")


@command.command("list")
@_JSON
def list_keys(as_json: bool) -> None:
    """List the trusted keys and the counters of what was accepted.

    \b
    overflight keys list
    """
    import msgspec

    from overflight.runtime.signatures.trust import TrustedKeys, accepted, trusted_folder

    trusted = TrustedKeys.load()
    counters = accepted(trusted.record)
    if as_json:
        keys = [key.name for key in trusted.keys.values()]
        content = {"keys": keys, "names": sorted(trusted.names), "accepted": counters}
        click.echo(msgspec.json.encode(content))
        return
    if not trusted.keys:
        click.echo(f"no key is trusted ({trusted_folder()}): bundles and banks are used without a signature")
        return
    for key in trusted.keys.values():
        click.echo(f"key {key.name}")
    click.echo(f"targets: {', '.join(sorted(trusted.names))}")
    for series, last in counters.items():
        click.echo(f"accepted {series}: counter {last.counter}, SHA-256 {last.sha256[:16]}…")


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@_JSON
def check(path: Path, as_json: bool) -> None:
    """Check the signature of a bundle or a bank as this machine would.

    \b
    overflight keys check base-256/
    """
    import msgspec

    from overflight.runtime.errors import SignatureError
    from overflight.runtime.signing import check_path

    approval = check_path(path)
    if approval is None:
        raise SignatureError(f"{path}: no key is trusted on this machine; trust one with: overflight keys trust")
    if as_json:
        content = {"key": approval.key, "series": approval.series, "terms": approval.terms, "sha256": approval.sha256}
        click.echo(msgspec.json.encode(content))
    else:
        click.echo(f"{path}: signed by key {approval.key}, counter {approval.terms.counter}, series {approval.series}")


def ask_password(password_file: Path | None, *, confirm: bool = False) -> str:
    """Return a password from a file, or ask for it on the terminal. Raises UsageError without either."""
    import sys

    from overflight.runtime.errors import UsageError

    if password_file is not None:
        try:
            with password_file.open(encoding="utf-8") as file:
                return file.readline(1024).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{password_file}: {error}; expected a file with one line") from error
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask for the password; pass --password-file FILE")
    return str(click.prompt("Password of the secret key", hide_input=True, confirmation_prompt=confirm, err=True))
