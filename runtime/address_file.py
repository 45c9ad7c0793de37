"""Addresses with credentials from files or the environment, so that no password stands on a command line.

Every user of a machine can read the command lines of all processes, with ``ps``. A file that others can read is
refused; systemd's ``LoadCredential`` makes one that only the service can read.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 65_536


def read_address(path: Path, option: str) -> str:
    """Return the one address in a file. Raises UsageError."""
    found = read_addresses(path, option)
    if len(found) != 1:
        raise UsageError(f"{option} {path}: {len(found)} addresses, expected one line")
    return found[0]


def read_addresses(path: Path, option: str) -> tuple[str, ...]:
    """Return the addresses in a file, one a line; empty lines and lines that begin with ``#`` are left out.

    Raises UsageError, never with a part of an address in its message.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o007:
            raise UsageError(f"{option} {path}: mode {mode:04o}, so every user can read it; run: chmod 600 {path}")
        text = read_regular(path, MAX_BYTES, UsageError).decode()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; expected a file with an address in it") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {path}: not UTF-8 text; expected a file with an address in it") from error
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
