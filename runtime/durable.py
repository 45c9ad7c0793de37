"""Files that a power cut leaves whole: written next to their name, synced, then renamed."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new, never a part.

    Once this has returned, a power cut does not lose the new content. ``mode`` is limited by the umask.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """Wait until the disk has a directory's entries: a file that was renamed into it may vanish in a power cut else."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no directories; NTFS logs its own entries
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that cannot sync directories
            raise
    finally:
        os.close(descriptor)
