"""What the tests of the service share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program ``overflight`` that is this checkout's."""
    program = tmp_path / "overflight"
    lines = (f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(HERE.parents[1] / 'src')!r})")
    program.write_text("\n".join((*lines, "from overflight.cli import main", "main()")))
    program.chmod(0o755)
    return program
