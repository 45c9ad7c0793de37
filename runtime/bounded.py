"""Reading files of bounded size: pipes, devices, dangling links and files that are too large are refused by name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from overflight.runtime.errors import OverflightError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def unsuitable(path: Path, most_bytes: int) -> str | None:
    """Return why a file must not be read whole, or None. Raises OSError where it cannot be looked at."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return f"{_KINDS.get(stat.S_IFMT(status.st_mode), 'not a file')}; expected a regular file"
    if status.st_size > most_bytes:
        return f"{status.st_size} bytes; expected at most {most_bytes}"
    return None


def open_regular(path: Path, most_bytes: int, error: type[OverflightError] = SourceError) -> BinaryIO:
    """Open a regular file of at most ``most_bytes``. Raises ``error`` for any other kind, OSError for none."""
    if reason := unsuitable(path, most_bytes):
        raise error(f"{path}: {reason}")
    # Without O_NONBLOCK, a pipe that takes the file's place between the two calls would block without end.
    # Windows has neither such pipes among its files nor the flag.
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)), "rb")


def read_regular(path: Path, most_bytes: int, error: type[OverflightError] = SourceError) -> bytes:
    """Read a regular file of at most ``most_bytes``. Raises ``error`` for any other, OSError where there is none."""
    with open_regular(path, most_bytes, error) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise error(f"{path}: grew beyond {most_bytes} bytes while it was read; expected at most that")
    return content


def identity(path: Path) -> tuple[int, int] | None:
    """Return which file is at a path, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
