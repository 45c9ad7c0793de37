"""The pieces of the GPU check: what is packed comes out again, and no piece is too large."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from overflight.bench import gpu_check


def test_pieces_are_small_and_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the recipe's first line, as a shell runs it; the checksums hold."""
    monkeypatch.setattr(gpu_check, "PIECE_BYTES", 40_000)
    place = tmp_path / "gpu-check"
    (place / "wheels").mkdir(parents=True)
    (place / "wheels" / "big.whl").write_bytes(bytes(range(256)) * 400)
    (place / "run.sh").write_text(gpu_check.RUN)
    pieces = gpu_check.pack(place, tmp_path / "out")
    assert len(pieces) >= 3
    assert max(piece.stat().st_size for piece in pieces) <= 40_000
    first, second = (tmp_path / "out" / "RECIPE").read_text().splitlines()
    there = tmp_path / "there"
    there.mkdir()
    for piece in pieces:
        (there / piece.name).write_bytes(piece.read_bytes())
    subprocess.run(["sh", "-c", first], cwd=there, check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=there / "gpu-check", check=True)
    assert (there / "gpu-check/wheels/big.whl").read_bytes() == bytes(range(256)) * 400
    assert second == "sh gpu-check/run.sh"


def test_the_pieces_of_a_release_are_below_64_mb() -> None:
    """In either meaning of MB."""
    assert gpu_check.PIECE_BYTES < 64_000_000


def test_the_script_is_a_shell_script() -> None:
    """Parsed, not run."""
    subprocess.run(["sh", "-n"], input=gpu_check.RUN, text=True, check=True)
