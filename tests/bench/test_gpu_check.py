"""The pieces of the GPU check: what is packed comes out again, and no piece is too large."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from overflight.bench import gpu_check


def test_pieces_are_small_and_make_the_whole(tmp_path: Path) -> None:
    """By the recipe's first line, as a shell runs it; the checksums hold."""
    place = tmp_path / "gpu-check"
    (place / "wheels").mkdir(parents=True)
    (place / "wheels" / "big.whl").write_bytes(bytes(range(256)) * 400)
    (place / "run.sh").write_text(gpu_check.RUN)
    pieces = gpu_check.pack(place, tmp_path / "out", 40_000)
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
    assert gpu_check.PIECE_MB < 64


def test_the_script_is_a_shell_script() -> None:
    """Parsed, not run."""
    subprocess.run(["sh", "-n"], input=gpu_check.RUN, text=True, check=True)


def wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
        file.writestr(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\n{lines}")


def test_what_the_other_machine_lacks_is_found(tmp_path: Path) -> None:
    """By its Python and machine, not by ours: pip 26 leaves tomli out of a pack for Python 3.10 made on 3.11.

    onnxruntime-gpu's cuda extra does not name cublas, which comes with cuDNN only.
    """
    wheel(tmp_path, "overflight", "0.1.0", "tomli>=2; python_version < '3.11'", "numpy>=1.26", "av>=14; extra == 'cpu'")
    wheel(tmp_path, "numpy", "1.26.4")
    wheel(tmp_path, "onnxruntime_gpu", "1.31.1", 'nvidia-cudnn-cu13~=9.0; extra == "cudnn"')
    wheel(tmp_path, "nvidia_cudnn_cu13", "9.28.1.4", "nvidia-cublas")
    asked = ("onnxruntime-gpu[cuda,cudnn]>=1.31", "cuda-bindings>=13")
    assert gpu_check.missing(tmp_path, asked, "3.10", "x86_64") == ("cuda-bindings>=13", "nvidia-cublas", "tomli>=2")
    wheel(tmp_path, "nvidia_cublas", "13.10.0.20")
    wheel(tmp_path, "cuda_bindings", "12.9.9")
    assert gpu_check.missing(tmp_path, asked, "3.12", "aarch64") == ("cuda-bindings>=13",)
    assert gpu_check.missing(tmp_path, asked[:1], "3.12", "aarch64") == ()


def test_a_board_gets_the_binding_of_its_cuda() -> None:
    """Without it, TensorRT's steps would be absent on the boards that they are for."""
    for python, major in (("3.10", "<13"), ("3.12", "<14")):
        needs = gpu_check.pack_for("aarch64", python, cpu=False, torch=False).requirements
        assert any(one.startswith("cuda-bindings") and one.endswith(major) for one in needs)
        assert not any("onnxruntime-gpu" in one or "tensorrt" in one for one in needs)
    with pytest.raises(SystemExit, match=r"expected one of a JetPack: 3\.10, 3\.12"):
        gpu_check.pack_for("aarch64", "3.11", cpu=False, torch=False)


def test_a_python_that_the_pack_is_not_for_is_named(tmp_path: Path) -> None:
    """Before anything is installed."""
    (tmp_path / "run.sh").write_text(gpu_check.RUN.replace("@PYTHON@", "3.99"))
    done = subprocess.run(
        ["sh", "run.sh"], cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHON": sys.executable},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert f"is Python 3.{sys.version_info[1]}, this pack is for 3.99; set PYTHON=" in done.stderr
    assert not (tmp_path / "site").exists()
