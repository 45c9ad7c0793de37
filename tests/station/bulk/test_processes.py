"""Real worker processes: the same rows with one and two, a killed worker, and a picture that ends its reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.bundle import Bundle
from overflight.station.bulk import BulkStore
from overflight.station.bulk.run import BulkProgress

pytestmark = pytest.mark.slow
Bulk = Callable[..., BulkProgress]
Files = Callable[..., dict[str, bytes]]


def test_two_workers_give_the_rows_of_one(bulk: Bulk, files_of: Files, pictures: Path) -> None:
    """Byte for byte."""
    bulk(pictures, name="one")
    bulk(pictures, name="two", workers=2)
    assert files_of("one") == files_of("two")


def test_a_killed_run_resumes(
    bulk: Bulk, files_of: Files, pictures: Path, tmp_path: Path, colour_bundle: Bundle
) -> None:
    """Driver and workers killed at once, whatever they were doing; the rows are those of a quiet run."""
    bulk(pictures, name="quiet", shard_rows=1)
    command = [sys.executable, "-m", "overflight", "bulk", str(pictures), "--out", str(tmp_path / "store")]
    command += ["--bundle", str(colour_bundle.directory), "--shard-rows", "1", "--workers", "2"]
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(list((tmp_path / "store").glob("manifests/*.json"))) < 3:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    assert files_of() == files_of("quiet")
    assert not list((tmp_path / "store").rglob(".partial-*"))


def test_a_picture_that_ends_its_reader_is_named(
    bulk: Bulk, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that crashes ends its worker; the run goes on, and names the picture."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom overflight.station.bulk import reading\nread = reading.read_noted\n"
        "reading.read_noted = lambda path: os.abort() if path.name == '5.png' else read(path)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    progress = bulk(pictures)
    assert (progress.rows, progress.failed) == (8, 1)
    failed: list[Any] = [one for record in BulkStore(tmp_path / "store").records() for one in record.failed]
    assert [one.name for one in failed] == ["5.png"]
