"""The GPU check for a machine without a network: everything it needs, in pieces that a slow or limited link takes.

Run by `make gpu-check`. The recipe for the other machine is two lines, printed at the end and kept in RECIPE.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIECE_BYTES = 60_000_000  # below 64 MB, in either meaning of MB
NAME = "gpu-check"
# What the check runs with, next to our wheel. TensorRT's index package has no wheel of its libraries: it is the
# machine's own (a Jetson's JetPack brings it), or comes with --wheels.
BASE = ("onnxruntime>=1.18", "onnx>=1.16")
GPU = ("onnxruntime-gpu[cuda,cudnn]>=1.18", "onnx>=1.16", "cuda-bindings>=12.6")
RECIPE = f"cat {NAME}.tar.* | tar xf -\nsh {NAME}/run.sh\n"
RUN = """#!/bin/sh
# Install into a folder of its own, without a network, and run the check. Results: gpu-check/results/.
set -eu
cd "$(dirname "$0")"
sha256sum --check --quiet --strict SHA256SUMS
python=${PYTHON:-python3}
"$python" -m venv --system-site-packages --without-pip venv
PYTHONPATH=$(ls wheels/pip-*.whl) venv/bin/python -m pip install --quiet --no-index --no-deps --ignore-installed \\
  --disable-pip-version-check --root-user-action=ignore wheels/*.whl
mkdir -p results
OVERFLIGHT_HOME=$PWD/home venv/bin/overflight bench device "$@" --out results/device.jsonl --record results/device.md
"""


def download(into: Path, requirements: tuple[str, ...], python: str, machine: str) -> None:
    """Download wheels for a Python and a machine. Raises SystemExit with pip's words."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (35, 34, 31, 28, 27, 24, 17)]
    target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms,
              f"--platform=manylinux2014_{machine}"]  # fmt: skip
    command = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={into}", *target, *requirements, "pip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip download: {done.stderr.strip()[-1500:]}")


def pack(place: Path, out: Path) -> list[Path]:
    """Pack a folder into pieces of at most ``PIECE_BYTES``; wheels are compressed already."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(place)}\n" for path in files]
    (place / "SHA256SUMS").write_text("".join(sums))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{NAME}.tar.*"):
        old.unlink()
    whole = place.parent / f"{NAME}.tar"
    with tarfile.open(whole, "w") as tar:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            tar.add(path, f"{NAME}/{path.relative_to(place)}")
    pieces: list[Path] = []
    with whole.open("rb") as file:
        while part := file.read(PIECE_BYTES):
            pieces.append(out / f"{NAME}.tar.{len(pieces):02}")
            pieces[-1].write_bytes(part)
    (out / "RECIPE").write_text(RECIPE)
    return pieces


def make(wheel: Path, out: Path, *, gpu: bool, python: str, machine: str, more: Path | None) -> list[Path]:
    """Collect our wheel, its dependencies and the script, and pack them."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / NAME
        wheels = place / "wheels"
        wheels.mkdir(parents=True)
        download(wheels, (str(wheel), *(GPU if gpu else BASE)), python, machine)
        if not list(wheels.glob(wheel.name)):
            shutil.copy(wheel, wheels)
        for extra in sorted(more.glob("*.whl")) if more is not None else ():
            shutil.copy(extra, wheels)
        (place / "run.sh").write_text(RUN)
        return pack(place, out)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("dist") / NAME)
    parser.add_argument("--cpu", action="store_true", help="without CUDA: every GPU step is then reported as absent")
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parser.add_argument("--machine", default="x86_64", choices=["x86_64", "aarch64"])
    parser.add_argument("--wheels", type=Path, help="a folder of further wheels, such as TensorRT's")
    asked = parser.parse_args()
    pieces = make(
        asked.wheel, asked.out, gpu=not asked.cpu, python=asked.python, machine=asked.machine, more=asked.wheels
    )
    total = sum(piece.stat().st_size for piece in pieces)
    largest = max(piece.stat().st_size for piece in pieces)
    print(f"{len(pieces)} pieces in {asked.out}, {total / 1e6:.0f} MB, none above {largest / 1e6:.0f} MB")
    print(f"copy them to the machine, and there:\n\n{RECIPE}")


if __name__ == "__main__":
    main()
