"""Every program of examples/ runs as it is, and prints what its first line promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
VIDEO = ROOT / "station" / "demo" / "flight.mp4"

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    not (ROOT / "models" / "bundle" / "manifest.json").is_file(), reason="no default bundle; run: make bundle"
)


def run(name: str, *arguments: object) -> list[str]:
    """Run one example and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_folder_is_classified(scenery: Path) -> None:
    """One line per picture, with its name."""
    lines = run("classify_folder", scenery / "field")
    assert len(lines) == 48
    assert all(".png: " in line for line in lines)


def test_a_camera_is_followed() -> None:
    """The test card stands in for a camera."""
    lines = run("follow_camera", "test://?fps=0&frames=20&size=160x120")
    assert lines
    assert all(line.startswith("frame ") and "ms old" in line for line in lines)


def test_labels_are_swapped_in_flight() -> None:
    """Two banks answer, one after the other."""
    pytest.importorskip("sentencepiece")
    lines = run("swap_labels", VIDEO)
    assert [line.split(":")[0] for line in lines] == ["first bank", "frame 0", "frame 21"]


def test_a_flight_is_read(tmp_path: Path) -> None:
    """Every frame of the flight is counted."""
    order = [sys.executable, "-m", "overflight", "run", "test://?fps=0&frames=12&size=160x120", "--out", tmp_path / "f"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run(list(map(str, order)), env=environment, check=True, capture_output=True, timeout=300)
    lines = run("read_flight", tmp_path / "f")
    assert ": 12 frames" in lines[0]
    assert lines[-1].startswith("  embeddings (12, ")


@pytest.mark.slow
def test_a_checkpoint_is_brought(tmp_path: Path) -> None:
    """Exported, checked and used."""
    pytest.importorskip("onnx")
    lines = run("bring_checkpoint", ROOT / "models" / "default", tmp_path / "bundle")
    assert "numbers per embedding" in lines[0]
    assert lines[-1].startswith("first frame: ")
    assert (tmp_path / "bundle.safetensors").is_file()


def test_the_engine_is_measured() -> None:
    """Percentiles of the engine that a flight would use."""
    (line, *_) = run("measure_engine")
    assert "p50" in line
    assert "p99" in line


def test_every_program_is_listed_and_tested() -> None:
    """A program that no test runs would rot."""
    programs = {path.stem for path in EXAMPLES.glob("*.py")}
    readme, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert all(f"({name}.py)" in readme and f'run("{name}"' in tests for name in programs)
