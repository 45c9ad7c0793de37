"""What tests of services ask an image and a real manager, and when they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("useradd") is None, reason="needs root and useradd")


def _can_boot() -> bool:
    tools = ("unshare", "nsenter", "systemctl", "journalctl", "pgrep", "useradd")
    return os.geteuid() == 0 and Path("/lib/systemd/systemd").exists() and all(shutil.which(tool) for tool in tools)


def inside(manager: list[str], *command: str | Path) -> str:
    """Run a command inside the manager's namespaces and return what it printed."""
    done = subprocess.run([*manager, *command], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


def wait_for(manager: list[str], wanted: str, unit: str = "overflight", timeout_s: float = 20) -> str:
    """Wait until the service's properties hold a line."""
    end = time.monotonic() + timeout_s
    while wanted not in (said := inside(manager, "systemctl", "show", unit)).splitlines():
        assert time.monotonic() < end, f"{wanted} did not come: {said[-2000:]}{journal(manager, unit)[-2000:]}"
        time.sleep(0.2)
    return said


def journal(manager: list[str], unit: str = "overflight") -> str:
    """Return what the service has said and what its manager said of it."""
    return inside(manager, "journalctl", "-u", unit, "-o", "cat", "--no-pager")


def footprint(manager: list[str]) -> str:
    """Return all that a service could have left: files, links, users and units."""
    look = (
        "find /etc /var/lib /run/credentials -iname '*overflight*' 2>/dev/null; grep -rl overflight /etc/systemd; "
        "getent passwd overflight; getent group overflight; "
        "systemctl list-units --all --plain --no-legend 'overflight*'"
    )
    return inside(manager, "sh", "-c", look)


needs_manager = pytest.mark.skipif(not _can_boot(), reason="needs root, namespaces and systemd")


def files(root: Path) -> set[str]:
    """Return what lies below a root, apart from the lists of users."""
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}
    return {name for name in found if not name.startswith(("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"))}
