"""The wheel: it carries the default model's bundle and every data file, nothing else, and stays small."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_BYTES = 95_000_000
LEFT_OUT = ("models/default/", "tests/", "docs/", ".", "jetson/Dockerfile", "bench/results/")


@pytest.mark.slow
def test_the_wheel_is_complete_and_small(tmp_path: Path) -> None:
    """What a room reads at run time is in the wheel; the checkpoint it was exported from is not."""
    if not (ROOT / "models" / "bundle" / "manifest.json").is_file():
        pytest.skip("no default bundle; run: make bundle")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("overflight/") for name in archive.namelist()}
    assert {"models/bundle/manifest.json", "models/bundle/image.onnx", "py.typed", "cli.py"} <= names
    assert not [name for name in names if name.startswith(("models/default", "tests"))]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    rooms = {path.name for path in (ROOT / "src" / "overflight").iterdir() if path.is_symlink()}
    wanted = {name for name in listed if name.split("/")[0] in rooms and not name.startswith(LEFT_OUT)}
    assert (
        wanted - names - {name for name in wanted if name.startswith("models/") and not name.endswith(".py")} == set()
    )
