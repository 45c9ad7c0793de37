"""The owner: root acts as the user that owns the deployments, so that links in that folder cannot mislead root."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from overflight.runtime.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def owner_name(home: Path) -> str | None:
    """Return the user that owns ``home``, where root must act as that user; else None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    owner = home.stat().st_uid
    return None if owner == 0 else pwd.getpwuid(owner).pw_name


@contextmanager
def as_owner(home: Path) -> Iterator[None]:
    """Act as the owner of ``home``; only what restarts the service still may use root's rights."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        name = owner_name(home)
    except (OSError, KeyError) as error:
        raise MissingError(f"{home}: {error}; name another folder with --home, or use sudo") from error
    if name is None:
        yield
        return
    import pwd

    user, groups = pwd.getpwnam(name), os.getgroups()
    os.setgroups(os.getgrouplist(name, user.pw_gid))
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
