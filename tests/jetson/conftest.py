"""What the tests of the service share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program ``overflight`` that is this checkout's."""
    program = tmp_path / "overflight"
    lines = (f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(HERE.parents[1] / 'src')!r})")
    program.write_text("\n".join((*lines, "from overflight.cli import main", "main()")))
    program.chmod(0o755)
    return program


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the root of an image with a list of users, as useradd wants it."""
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group"):
        (tmp_path / "etc" / name).write_text(f"root:x:0:{'0::/root:/bin/sh' if name == 'passwd' else ''}\n")
    return tmp_path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[list[str]]:
    """Boot a real systemd over a throw-away file system; returns the command that reaches inside."""
    (tmp_path / "scratch").mkdir()
    command = [HERE / "manager.sh", tmp_path / "scratch"]
    started = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if not started.stdout.strip():
        pytest.skip(f"no manager can be booted here: {started.stderr.strip()[-200:]}")
    yield ["nsenter", "-t", started.stdout.strip(), "-a", "-r", "-w"]
    os.kill(int(started.stdout), signal.SIGKILL)
