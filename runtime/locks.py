"""Locks between processes: flock(2), or a locked byte on Windows. They end with the process, however that dies."""

from __future__ import annotations

import time
from typing import Any

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_RETRY_S = 0.05


def lock_file(descriptor: int, *, wait: bool) -> None:
    """Lock an open file until it is closed.

    Raises BlockingIOError where another process has it and ``wait`` is false, OSError where the file system has no
    locks.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(error.errno, error.strerror) from error
            time.sleep(_RETRY_S)
        else:
            return
