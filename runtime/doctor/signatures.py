"""Signatures before a flight: which keys are trusted, whether they can be used, and no secret key on board."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from overflight.jetson.checks import Check
from overflight.runtime.errors import OverflightError
from overflight.runtime.signatures.minisign import MAX_TEXT
from overflight.runtime.signatures.trust import TrustedKeys

if TYPE_CHECKING:
    from pathlib import Path

_MOST_FILES = 1000


def check_signatures(home: Path) -> Check:
    """Check the trusted keys, and that no secret key lies in this machine's home folder."""
    try:
        trusted = TrustedKeys.load(home=home)
    except OverflightError as error:
        found, _, cure = str(error).rpartition("; ")
        return Check("signatures", "fail", found, cure.removeprefix("run: "))
    secret = next((path for path in sorted(home.glob("*.key"))[:_MOST_FILES] if _is_secret(path)), None)
    if secret is not None:
        found = f"{secret} is a secret signing key, which a lost aircraft would give away"
        return Check("signatures", "warn", found, f"move it to the ground, and: shred -u {secret}")
    if not trusted.keys:
        return Check("signatures", "ok", "no key is trusted, so bundles and banks are used without a signature")
    if find_spec("cryptography") is None:
        cure = "pip install 'overflight[signatures]'"
        return Check("signatures", "fail", "a key is trusted, but cryptography is not installed to verify with", cure)
    keys = ", ".join(key.name for key in trusted.keys.values())
    return Check("signatures", "ok", f"trusted: {keys}; this machine is {' or '.join(sorted(trusted.names))}")


def _is_secret(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(MAX_TEXT).startswith(b"untrusted comment: minisign encrypted secret key")
    except OSError:
        return False
