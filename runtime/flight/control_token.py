"""The control token: a secret in a file of mode 0600 that a program on this machine must show to change labels."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from typing import TYPE_CHECKING

from overflight.runtime.errors import UsageError
from overflight.runtime.paths import home

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1024


class ControlToken:
    """The token of ``path``, made if missing. Raises UsageError where others could read it or it cannot be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._expected = _make(path) if not path.exists() else _read(path)
        except OSError as error:
            raise UsageError(
                f"{path}: {error.strerror}; the control token must be kept there, set OVERFLIGHT_HOME to a folder that "
                "can be written, or leave out --health"
            ) from error

    def allows(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header carries the token, as ``Bearer TOKEN``."""
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._expected)


def token_path() -> Path:
    """Return where the control token lies: ``$OVERFLIGHT_HOME/control.token``."""
    return home() / "control.token"


def _make(path: Path) -> bytes:
    token = secrets.token_urlsafe(32)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    try:
        os.link(partial, path)  # fails where another process made one first
    except FileExistsError:
        return _read(path)
    finally:
        partial.unlink()
    return token.encode()


def _read(path: Path) -> bytes:
    status = path.stat()
    if status.st_mode & 0o077 or not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: mode {stat.S_IMODE(status.st_mode):04o}, expected 0600; run: chmod 600 {path}")
    with path.open("rb") as file:
        token = file.read(_MOST_BYTES).strip()
    if len(token) < 16:
        raise UsageError(f"{path}: {len(token)} characters, expected at least 16; delete it, a new one is made")
    return token
