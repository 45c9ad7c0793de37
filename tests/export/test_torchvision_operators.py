"""A torchvision whose library was built for another torch can still be imported by those that need its transforms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_USE = """
from overflight.export.torchvision_operators import define_missing_operators
define_missing_operators()
define_missing_operators()
import torchvision
"""


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}, check=False
    )


def test_a_library_for_another_torch_is_stood_in_for(tmp_path: Path) -> None:
    """What fails by itself as users report it succeeds after the call, which may be repeated."""
    pytest.importorskip("torch")
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"built for another torch")
    (package / "__init__.py").write_text("import torch\ntorch.ops.torchvision.nms.default\n")
    alone = _run("import torchvision", tmp_path)
    assert "has no attribute 'nms'" in alone.stderr
    assert _run(_USE, tmp_path).returncode == 0


def test_without_torchvision_nothing_is_loaded() -> None:
    """A machine without torchvision does not pay for importing torch."""
    code = _USE.replace("import torchvision", "import sys; assert 'torch' not in sys.modules")
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source}, check=False
    )
    assert done.returncode == 0, done.stderr
