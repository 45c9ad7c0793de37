"""The GPU check for a machine without a network: everything it needs, in pieces that a slow or limited link takes.

Run by `make gpu-check`. The recipe for the other machine is two lines, printed at the end and kept in RECIPE.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PIECE_MB = 60  # below 64 MB, in either meaning of MB
NAME = "gpu-check"
# What the check runs with, next to our wheel. TensorRT's index package has no wheel of its libraries: it is the
# machine's own (a Jetson's JetPack brings it), or comes with --wheels.
CPU = ("onnxruntime>=1.18", "onnx>=1.16")
CUDA = ("onnxruntime-gpu[cuda,cudnn]>=1.31", "onnx>=1.16", "cuda-bindings>=13")
WITH_TORCH = ("onnxruntime-gpu>=1.31", "onnx>=1.16", "cuda-bindings>=13")  # PyTorch's CUDA wheels are there already
# A board: JetPack brings CUDA and TensorRT, by the Python of its release; its OpenCV needs NumPy 1.
BOARDS = {
    "3.10": ("onnxruntime>=1.18", "onnx>=1.16", "numpy>=1.26,<2", "cuda-bindings>=12.6,<13"),
    "3.12": ("onnxruntime>=1.18", "onnx>=1.16", "numpy>=1.26,<2", "cuda-bindings>=13,<14"),
}
RECIPE = f"cat {NAME}.tar.* | tar xf -\nsh {NAME}/run.sh\n"
# A folder on the path, not a virtual environment: one made by a Python that lies in an environment itself would not see
# that one's PyTorch.
RUN = """#!/bin/sh
# Install into a folder of its own, without a network, and run the check. Results: gpu-check/results/.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wanted=@PYTHON@
if [ "$found" != "$wanted" ]; then
  echo "run.sh: $python is Python $found, this pack is for $wanted; set PYTHON=" >&2
  exit 3
fi
if [ ! -f site/complete ]; then
  sha256sum --check --quiet --strict SHA256SUMS
  rm -rf site
  PYTHONPATH=$(ls wheels/pip-*.whl) "$python" -m pip install --quiet --no-index --no-deps --target site --no-compile \\
    --no-cache-dir --disable-pip-version-check --root-user-action=ignore wheels/*.whl
  touch site/complete
fi
mkdir -p results
export OVERFLIGHT_HOME="$PWD/home" PYTHONPATH="$PWD/site"
exec "$python" -m overflight bench device "$@" --out results/device.jsonl --record results/device.md
"""


@dataclass(frozen=True)
class Pack:
    """What is packed, and for which machine."""

    requirements: tuple[str, ...]
    python: str
    machine: str


def download(into: Path, requirements: tuple[str, ...], python: str, machine: str) -> None:
    """Download wheels for a Python and a machine, with everything that they need there.

    pip reads the conditions of a wheel's requirements for the Python that runs it, so those of another Python are asked
    for by name. Raises SystemExit with pip's words.
    """
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (35, 34, 31, 28, 27, 24, 17)]
    target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms,
              f"--platform=manylinux2014_{machine}"]  # fmt: skip
    command = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={into}", *target]
    asked = (*requirements, "pip")
    while asked:
        done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"pip download: {done.stderr.strip()[-1500:]}")
        left = missing(into, requirements, python, machine)
        if set(left) == set(asked):
            raise SystemExit(f"pip did not download {', '.join(left)}")
        asked = left


def missing(wheels: Path, requirements: tuple[str, ...], python: str, machine: str) -> tuple[str, ...]:
    """Return what the wheels in a folder need on that machine and Python and no wheel there satisfies."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename

    machine_there = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
                     "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}  # fmt: skip
    there = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in sorted(wheels.glob("*.whl"))}
    open_ones = [Requirement(one) for one in requirements if not one.endswith(".whl")]
    open_ones += [Requirement(one) for name in there for one in _requires(there[name])]
    left, seen = [], set()
    while open_ones:
        one = open_ones.pop()
        if str(one) in seen or not _holds(one, machine_there):
            continue
        seen.add(str(one))
        wheel = there.get(canonicalize_name(one.name))
        if wheel is None or not one.specifier.contains(parse_wheel_filename(wheel.name)[1], prereleases=True):
            left.append(f"{one.name}{one.specifier}")
            continue
        for extra in one.extras:
            inner = (Requirement(text) for text in _requires(wheel))
            open_ones += [_unmarked(need) for need in inner if _holds(need, machine_there, extra)]
    return tuple(sorted(set(left)))


def _holds(requirement: Requirement, machine: dict[str, str], extra: str = "") -> bool:
    """Whether a requirement applies there; what only an extra asks for applies with that extra."""
    marker = requirement.marker
    return marker is None or marker.evaluate({**machine, "extra": extra})


def _unmarked(requirement: Requirement) -> Requirement:
    requirement.marker = None  # judged already, with its extra
    return requirement


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        (name,) = [name for name in content.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        return email.message_from_bytes(content.read(name)).get_all("Requires-Dist") or []


def pack(place: Path, out: Path, piece_bytes: int) -> list[Path]:
    """Pack a folder into pieces of at most ``piece_bytes``; wheels are compressed already."""
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
        while part := file.read(piece_bytes):
            pieces.append(out / f"{NAME}.tar.{len(pieces):03}")
            pieces[-1].write_bytes(part)
    (out / "RECIPE").write_text(RECIPE)
    return pieces


def make(wheel: Path, out: Path, pack_of: Pack, *, more: Path | None, piece_mb: int) -> list[Path]:
    """Collect our wheel, its dependencies and the script, and pack them. Raises SystemExit when one is missing."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / NAME
        wheels = place / "wheels"
        wheels.mkdir(parents=True)
        download(wheels, (str(wheel), *pack_of.requirements), pack_of.python, pack_of.machine)
        if not list(wheels.glob(wheel.name)):
            shutil.copy(wheel, wheels)
        for extra in sorted(more.glob("*.whl")) if more is not None else ():
            shutil.copy(extra, wheels)
        if left := missing(wheels, pack_of.requirements, pack_of.python, pack_of.machine):
            raise SystemExit(f"the pack would lack {', '.join(left)}; add them with --wheels FOLDER")
        (place / "run.sh").write_text(RUN.replace("@PYTHON@", pack_of.python))
        return pack(place, out, piece_mb * 1_000_000)


def pack_for(machine: str, python: str, *, cpu: bool, torch: bool) -> Pack:
    """Choose the packages: a board's CUDA and TensorRT are JetPack's own."""
    if machine == "aarch64":
        if python not in BOARDS:
            raise SystemExit(f"--python {python}: expected one of a JetPack: {', '.join(BOARDS)}")
        return Pack(BOARDS[python], python, machine)
    return Pack(CPU if cpu else WITH_TORCH if torch else CUDA, python, machine)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("dist") / NAME)
    parser.add_argument("--cpu", action="store_true", help="without CUDA: every GPU step is then reported as absent")
    parser.add_argument("--torch", action="store_true", help="leave out NVIDIA's wheels: PyTorch for CUDA 13 is there")
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parser.add_argument("--machine", default="x86_64", choices=["x86_64", "aarch64"], help="aarch64 is a Jetson")
    parser.add_argument("--wheels", type=Path, help="a folder of further wheels, such as TensorRT's")
    parser.add_argument("--piece-mb", type=int, default=PIECE_MB, help="the largest piece, in millions of bytes")
    asked = parser.parse_args()
    chosen = pack_for(asked.machine, asked.python, cpu=asked.cpu, torch=asked.torch)
    pieces = make(asked.wheel, asked.out, chosen, more=asked.wheels, piece_mb=asked.piece_mb)
    total = sum(piece.stat().st_size for piece in pieces)
    largest = max(piece.stat().st_size for piece in pieces)
    print(f"{len(pieces)} pieces in {asked.out}, {total / 1e6:.0f} MB, none above {largest / 1e6:.0f} MB")
    print(f"for Python {chosen.python} on {chosen.machine}; copy them there, and then:\n\n{RECIPE}")


if __name__ == "__main__":
    main()
