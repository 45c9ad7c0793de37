"""Everything that the README shows runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BUNDLE = ROOT / "models" / "bundle"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a directory with what the README's commands name: a film, a label file, and a checkpoint."""
    if not (BUNDLE / "manifest.json").is_file():
        pytest.skip("no default bundle; run: make bundle")
    (tmp_path / "station" / "demo").mkdir(parents=True)
    film = ROOT / "station" / "demo" / "flight.mp4"
    for name in ("flight.mp4", "station/demo/flight.mp4"):
        shutil.copy(film, tmp_path / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bundle").symlink_to(BUNDLE)  # what make demo leaves
    (tmp_path / "scenes.txt").write_text("meadow\nforest\nroad\n")
    shutil.copytree(ROOT / "models" / "default", tmp_path / "Git-RSCLIP")  # stands in for weights that are not ours
    (tmp_path / "overflight").write_text(f'#!/bin/sh\nexec {sys.executable} -m overflight "$@"\n')
    (tmp_path / "overflight").chmod(0o755)
    return tmp_path


def run(command: list[str], desk: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PATH": f"{desk}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_run(desk: Path) -> None:
    """Each block of commands, one after the other, as a newcomer would type them."""
    flying = [block for block in blocks("sh") if "overflight" in block and "make" not in block]
    assert len(flying) == 2
    for block in flying:
        run(["sh", "-eu", "-c", block], desk)
    assert (desk / "flights" / "first" / "report.html").is_file()
    assert (desk / "flights" / "second" / "observations.jsonl").is_file()


@pytest.mark.slow
def test_the_six_lines_of_python_run(desk: Path) -> None:
    """They print one line a frame."""
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line]) <= 6
    lines = run([sys.executable, "-c", block], desk).splitlines()
    assert len(lines) > 100
    assert all(line.endswith(" ms") for line in lines)


def test_the_make_targets_exist() -> None:
    """The two commands of the first screen are real."""
    for target in re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and of the docs names a file of the repository."""
    for page in [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
