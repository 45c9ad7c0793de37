"""The offline archive: every wheel that a board needs, pinned by hash, its tags and machine code checked.

Run by `make jetson-bundle`. `lock` resolves again and needs the Python it resolves for; `make` needs only the pins.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKS = HERE / "wheels"
# Ubuntu 22.04 under JetPack 6; a wheel for an older glibc runs on a newer one.
GLIBC = (2, 35)
MACHINES = {"aarch64": 183, "x86_64": 62}  # ELF e_machine
# Not for boards: JetPack brings its own, linked to its own CUDA and GStreamer.
FORBIDDEN = re.compile(r"^(opencv|tensorrt|nvidia|torch)")
COPYLEFT = re.compile(r"^(av|pyav)$")  # its wheels hold GPL codecs: install it separately
SIGNATURES = ["cryptography>=42"]  # an aircraft that trusts a key must be able to verify
# Whatever is compiled against NumPy 1 on the board (JetPack's OpenCV, NVIDIA's ONNX Runtime) must stay importable.
WANTED = {
    ("aarch64", "310"): ["numpy>=1.26,<2", "onnxruntime>=1.17", "cuda-bindings>=12.6,<13", *SIGNATURES],
    ("aarch64", "312"): ["numpy>=1.26,<2", "onnxruntime>=1.17", "cuda-bindings>=13,<14", *SIGNATURES],
    ("x86_64", "310"): ["onnxruntime>=1.17", "opencv-python-headless>=4.8", *SIGNATURES],
    ("x86_64", "312"): ["onnxruntime>=1.17", "opencv-python-headless>=4.8", *SIGNATURES],
}
PIP = "pip>=25.1"
_WHEEL = re.compile(
    r"^(?P<name>[^-]+)-(?P<version>[^-]+)(?:-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$"
)


@dataclass(frozen=True)
class Target:
    """One machine and one Python: ("aarch64", "310") is an Orin on JetPack 6."""

    machine: str
    python: str

    @property
    def lock(self) -> Path:
        """The file with its pins, in pip's format with hashes."""
        return LOCKS / f"{self.machine}-cp{self.python}.txt"

    @property
    def platforms(self) -> list[str]:
        """The platform tags that this machine's pip accepts, newest first."""
        versions = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC[1], 16, -1)]
        return [*versions, f"manylinux2014_{self.machine}"]

    @property
    def pip(self) -> list[str]:
        """The options with which pip resolves for this target instead of for this machine."""
        tags = [option for platform in self.platforms for option in ("--platform", platform)]
        abis = ["--abi", f"cp{self.python}", "--abi", "abi3", "--abi", "none"]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", *abis, *tags]


TARGETS = [Target(machine, python) for machine, python in WANTED]


def resolve(target: Target, python: str, wheel: Path) -> list[str]:
    """Resolve a target's requirements with a Python of its version (pip evaluates markers for its own Python)."""
    asked = [str(wheel), *WANTED[target.machine, target.python], PIP]
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report=-"]
    with tempfile.TemporaryDirectory() as scratch:
        done = _run([*command, f"--target={scratch}", *target.pip, *asked])
    report = json.loads(done)
    if not report["environment"]["python_version"].replace(".", "") == target.python:
        raise SystemExit(f"{python} is Python {report['environment']['python_version']}, expected {target.python}")
    lines = []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name.lower() != "overflight":
            lines.append(f"{name}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}")
    return sorted(lines, key=str.lower)


def download(target: Target, into: Path) -> list[Path]:
    """Download a target's pinned wheels; pip refuses a file with another hash."""
    with tempfile.TemporaryDirectory() as scratch:
        _run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", f"--dest={scratch}",
             *target.pip, "--requirement", str(target.lock)]
        )  # fmt: skip
        wheels = sorted(Path(scratch).glob("*.whl"))
        return [wheel.replace(into / wheel.name) for wheel in wheels]


def faults(wheel: Path, target: Target) -> list[str]:
    """List why a wheel would not run on a target: its tags, the tags inside, machine code for another processor."""
    found = _WHEEL.match(wheel.name)
    if not found:
        return [f"{wheel.name} is not a wheel"]
    said = [] if _runs(found["python"], found["abi"], found["platform"], target) else [f"tags of {wheel.name}"]
    if target.machine == "aarch64" and FORBIDDEN.match(found["name"].lower()):
        said.append(f"{found['name']} would shadow JetPack's own")
    if COPYLEFT.match(found["name"].lower()):
        said.append(f"{found['name']} holds GPL codecs, which this archive must not contain")
    with zipfile.ZipFile(wheel) as content:
        (inner,) = [name for name in content.namelist() if re.fullmatch(r"[^/]+\.dist-info/WHEEL", name)]
        tags = re.findall(r"^Tag: ([^-\s]+)-([^-\s]+)-(\S+)", content.read(inner).decode(), re.MULTILINE)
        if not any(_runs(python, abi, platform, target) for python, abi, platform in tags):
            said.append(f"{wheel.name} contains the tags {tags}")
        for name in content.namelist():
            with content.open(name) as file:
                head = file.read(20)
            if head[:4] == b"\x7fELF" and int.from_bytes(head[18:20], "little") != MACHINES[target.machine]:
                said.append(f"{name} is code for another machine")
    return said


def make(machine: str, wheel: Path, out: Path) -> Path:
    """Write the archive of a machine. Raises SystemExit when a wheel would not run there."""
    targets = [target for target in TARGETS if target.machine == machine]
    name = f"{wheel.name.split('-py3')[0]}-{machine}"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / name
        (place / "wheels").mkdir(parents=True)
        own = place / "wheels" / wheel.name
        own.write_bytes(wheel.read_bytes())
        for target in targets:
            wheels = [*download(target, place / "wheels"), own]
            if said := [fault for path in wheels for fault in faults(path, target)]:
                raise SystemExit(f"cp{target.python} on {machine}: {'; '.join(said)}")
            (place / f"cp{target.python}.txt").write_text("".join(f"wheels/{path.name}\n" for path in wheels))
            print(f"cp{target.python} on {machine}: {len(wheels)} wheels, every tag and every ELF header checked")
        (place / "MACHINE").write_text(f"{machine}\n")
        (place / "install.sh").write_bytes((HERE / "install.sh").read_bytes())
        files = sorted(path for path in place.rglob("*") if path.is_file())
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(place)}\n" for path in files]
        (place / "SHA256SUMS").write_text("".join(sums))
        out.mkdir(parents=True, exist_ok=True)
        archive = out / f"{name}.tar.gz"
        archive.write_bytes(_pack(place))
    return archive


def _runs(python: str, abi: str, platform: str, target: Target) -> bool:
    own = f"cp{target.python}"
    stable = re.fullmatch(r"cp3(\d+)", python)
    fits = (
        (own in python.split(".") and abi in (own, "none"))
        or (any(tag in ("py3", f"py{target.python}") for tag in python.split(".")) and abi == "none")
        or (abi == "abi3" and stable is not None and int(stable[1]) <= int(target.python[1:]))
    )  # fmt: skip
    return fits and any(tag == "any" or tag in target.platforms or _legacy(tag, target) for tag in platform.split("."))


def _legacy(tag: str, target: Target) -> bool:
    return tag in (f"manylinux1_{target.machine}", f"manylinux2010_{target.machine}", f"manylinux_2_5_{target.machine}",
                   f"manylinux_2_12_{target.machine}")  # fmt: skip


def _pack(place: Path) -> bytes:
    """Pack a folder so that the same content gives the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(f"{place.name}/{path.relative_to(place)}")
            entry.size, entry.mode = path.stat().st_size, 0o755 if path.suffix == ".sh" else 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return packed.getvalue()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    lock = stages.add_parser("lock", help="resolve again and write the pins")
    lock.add_argument("wheel", type=Path)
    lock.add_argument("pythons", nargs="+", help="a python3.10 and a python3.12")
    build = stages.add_parser("make", help="download by the pins, check, pack")
    build.add_argument("wheel", type=Path)
    build.add_argument("--machine", choices=list(MACHINES), action="append")
    build.add_argument("--out", type=Path, default=Path("dist"))
    asked = parser.parse_args()
    if asked.stage == "make":
        for machine in asked.machine or list(MACHINES):
            archive = make(machine, asked.wheel, asked.out)
            print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")
        return
    LOCKS.mkdir(exist_ok=True)
    for target in TARGETS:
        python = next((it for it in asked.pythons if f"3.{target.python[1:]}" in it), asked.pythons[0])
        pins = resolve(target, python, asked.wheel.resolve())
        target.lock.write_text("".join(f"{pin}\n" for pin in pins))
        print(f"{target.lock}: {len(pins)} pins")


if __name__ == "__main__":
    main()
