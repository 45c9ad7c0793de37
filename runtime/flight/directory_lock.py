"""One flight, one directory: the lock that a flight holds on its directory while it is written.

The directory itself is locked with flock(2). It needs no lock file, which `--replace` would have to spare and a copy of
the flight would carry, and it ends with the process however that dies. That is why the filelock package is not used.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import UsageError
from overflight.runtime.log import say

if TYPE_CHECKING:
    from pathlib import Path

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where directories cannot be opened
    fcntl = None


def lock_directory(directory: Path) -> int | None:
    """Lock a directory for one flight and return what `release` takes.

    None where the file system has no locks. Raises UsageError where another flight is being written there.
    """
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise UsageError(
                f"{directory}: another flight is being written there now; end it first, or name another directory"
            ) from error
        say("flight directory not locked", directory=str(directory), reason=error.strerror)
        return None
    return descriptor


def is_locked(directory: Path) -> bool:
    """Whether a flight is being written in a directory now."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def release(lock: int | None) -> None:
    """End a lock."""
    if lock is not None:
        os.close(lock)
