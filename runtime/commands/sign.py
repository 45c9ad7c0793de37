"""``overflight sign``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", "secret", required=True, type=click.Path(path_type=Path), help="The secret key file.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="Read the password from this file instead of asking."
)
@click.option("--target", default="*", show_default=True, help="The aircraft it is for: a host name or a pattern.")
@click.option("--expires", default="365d", show_default=True, help="First use by: 12h, 30d, 8w, a date, or never.")
@click.option("--counter", type=int, help="Only grows; an aircraft refuses a lower one. The time when left out.")
@click.option("--series", help="Counters are compared within a series; bundle or bank when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    paths: tuple[Path, ...],
    secret: Path,
    password_file: Path | None,
    target: str,
    expires: str,
    counter: int | None,
    series: str | None,
    as_json: bool,
) -> None:
    """Sign bundles and label banks for the aircraft that trust the key.

    A bundle is signed as it will be deployed: calibrate first, then sign. The signature lies in manifest.json.minisig
    or BANK.minisig, and minisign -V verifies it too.

    \b
    overflight sign base-256/ scenes.safetensors --key survey.key
    overflight sign scenes.safetensors --key survey.key --target survey-7 --expires 30d
    """
    import msgspec

    from overflight.runtime.commands.keys import ask_password
    from overflight.runtime.signatures.secret_key import SecretKey
    from overflight.runtime.signatures.terms import Terms
    from overflight.runtime.signing import refuse_on_board, sign_path

    refuse_on_board()
    key = SecretKey.load(secret, lambda: ask_password(password_file))
    written = []
    for path in paths:
        terms = Terms.make(counter=counter, target=target, expires=expires, series=series)
        written.append((sign_path(path, key, terms), terms))
    if as_json:
        click.echo(msgspec.json.encode([{"signature": str(place), "terms": terms} for place, terms in written]))
        return
    for place, terms in written:
        click.echo(f"{place}: key {key.public.name}, counter {terms.counter}, for {terms.target}, expires {expires}")
