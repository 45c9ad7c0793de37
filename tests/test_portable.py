"""The ground's commands run where the modules and calls of Linux are missing, as on a Windows laptop.

Windows itself is not run here: its modules are taken away, and its byte locks are made of POSIX's.

Covers: runtime/locks.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

cv2 = pytest.importorskip("cv2")
pytest.importorskip("filelock")

ROOT = Path(__file__).parents[1]

WITHOUT_LINUX = """
    import os, signal, sys, types
    import asyncio, concurrent.futures, fcntl, filelock, multiprocessing, platform, shutil, subprocess, tempfile, uuid

    usage, locks, exclusive = shutil.disk_usage("/"), fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB
    shutil.disk_usage = lambda path: usage
    locked = 0

    def locking(descriptor, mode, count):
        global locked
        try:
            locks(descriptor, exclusive, count)
        except OSError as error:
            raise PermissionError(13, "Permission denied") from error
        locked += 1

    for name in ("fcntl", "grp", "pwd", "termios", "resource", "syslog"):
        sys.modules[name] = None
    sys.modules["msvcrt"] = types.ModuleType("msvcrt")
    sys.modules["msvcrt"].LK_NBLCK, sys.modules["msvcrt"].locking = 2, locking
    for name in ("geteuid", "getuid", "getegid", "getgid", "fchmod", "fchown", "chown", "statvfs", "mkfifo",
                 "sched_getaffinity", "getloadavg", "O_DIRECTORY", "O_NOFOLLOW", "killpg", "setsid"):
        delattr(os, name)
    for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGALRM", "SIGPIPE", "SIGCHLD"):
        delattr(signal, name)

    from overflight.cli import overflight

    for line in sys.stdin.read().splitlines():
        print("#", line, flush=True)
        overflight(line.split(), standalone_mode=False)
    from overflight.runtime.locks import lock_file
    with open(sys.argv[1], "w") as file:
        lock_file(file.fileno(), wait=False)
    assert locked
"""


@pytest.mark.slow
def test_the_ground_works_without_linux(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """From pictures to an archive that is searched, described, reviewed and reported."""
    stills = tmp_path / "stills"
    stills.mkdir()
    for number, shade in enumerate((20, 120, 220)):
        assert cv2.imwrite(str(stills / f"{number}.png"), np.full((48, 64, 3), shade, np.uint8))
    given, bank = f"--bundle {colour_bundle.directory}", tmp_path / "bank.safetensors"
    colour_bank.save(bank)
    lines = [
        "doctor --json",
        f"classify {stills} {given} --labels {bank}",
        f"embed {stills} {given} -o {tmp_path}/x.npz",
        f"run {stills} {given} --labels {bank} --out {tmp_path}/flight",
        f"report {tmp_path}/flight",
        f"archive add {tmp_path}/archive {tmp_path}/flight",
        f"archive list {tmp_path}/archive",
        f"archive check {tmp_path}/archive",
        f"review list {tmp_path}/archive",
        "keys list",
    ]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_LINUX), str(tmp_path / "lock")],
        input="\n".join(lines),
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OVERFLIGHT_HOME": str(tmp_path / "home")},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    assert (tmp_path / "flight" / "report.html").is_file()
