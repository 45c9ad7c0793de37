"""The offline archive: what it refuses, what it pins, and that its installer needs nothing but a Python."""

from __future__ import annotations

import ensurepip
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from overflight.jetson import archive
from overflight.jetson.archive import TARGETS, Target

ORIN = Target("aarch64", "310")
ELF = b"\x7fELF" + bytes(14)
PREFIX = "opt"


def write_wheel(place: Path, name: str, files: dict[str, bytes] | None = None, tags: str | None = None) -> Path:
    """Write a wheel whose WHEEL file repeats the tags of its name, or ``tags``."""
    project, version, *own = name.removesuffix(".whl").split("-")
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
    with zipfile.ZipFile(place / name, "w") as wheel:
        for path, content in (files or {}).items():
            wheel.writestr(path.replace("INFO", info), content)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags or '-'.join(own)}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return place / name


@pytest.mark.parametrize(
    "name",
    [
        "rich-15.0.0-py3-none-any.whl",
        "numpy-1.26.4-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "safetensors-0.8.0-cp38-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "flatbuffers-25.12.19-py2.py3-none-any.whl",
    ],
)
def test_wheels_that_run_on_an_orin(tmp_path: Path, name: str) -> None:
    """Pure, of its own version, of the stable interface."""
    assert archive.faults(write_wheel(tmp_path, name), ORIN) == []


@pytest.mark.parametrize(
    "name",
    [
        "numpy-2.5.5-cp312-cp312-manylinux_2_28_aarch64.whl",
        "numpy-1.26.4-cp310-cp310-manylinux_2_17_x86_64.whl",
        "new-1-cp311-abi3-manylinux_2_17_aarch64.whl",
        "glibc-1-cp310-cp310-manylinux_2_39_aarch64.whl",
        "musl-1-cp310-cp310-musllinux_1_2_aarch64.whl",
        "thing-1.tar.gz",
    ],
)
def test_wheels_that_do_not(tmp_path: Path, name: str) -> None:
    """Another Python, machine, interface, a newer glibc, another libc, no wheel."""
    path = write_wheel(tmp_path, name) if name.endswith(".whl") else tmp_path / name
    assert archive.faults(path, ORIN) != []


def test_what_a_wheel_holds_counts_too(tmp_path: Path) -> None:
    """A name can lie: the tags inside and the machine code are looked at."""
    x86 = ELF + (62).to_bytes(2, "little")
    wheel = write_wheel(tmp_path, "liar-1-py3-none-any.whl", {"liar/x.so": x86})
    assert archive.faults(wheel, ORIN) == ["liar/x.so is code for another machine"]
    wheel = write_wheel(tmp_path, "liar-2-py3-none-any.whl", tags="cp312-cp312-linux_x86_64")
    assert archive.faults(wheel, ORIN) != []


@pytest.mark.parametrize(
    "name", ["opencv_python-5-cp37-abi3-manylinux2014_aarch64.whl", "tensorrt-11-py3-none-any.whl"]
)
def test_nothing_that_shadows_jetpack(tmp_path: Path, name: str) -> None:
    """The board's own OpenCV and TensorRT are used."""
    assert "shadow" in archive.faults(write_wheel(tmp_path, name), ORIN)[0]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.lock.stem)
def test_every_pin_has_a_hash(target: Target) -> None:
    """Name, exact version, SHA-256; on boards NumPy 1, for what JetPack compiled against it."""
    pins = target.lock.read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", pin) for pin in pins)
    names = {pin.split("==")[0].lower() for pin in pins}
    assert {"numpy", "msgspec", "click", "safetensors", "onnxruntime", "pip"} <= names
    if target.machine == "aarch64":
        assert not any(archive.FORBIDDEN.match(name) for name in names)
        assert any(pin.startswith("numpy==1.26") for pin in pins)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Lay out an archive for this machine and Python whose Overflight only says its version."""
    place = tmp_path / "archive"
    (place / "wheels").mkdir(parents=True)
    own = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    script = b'def main() -> None:\n    print("0.0.1")\n'
    entry = b"[console_scripts]\noverflight = overflight:main\n"
    write_wheel(place / "wheels", "overflight-0.0.1-py3-none-any.whl",
                {"overflight/__init__.py": script, "INFO/entry_points.txt": entry})  # fmt: skip
    pip = next(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"), None)
    if pip is None:
        pytest.skip("this Python brings no pip wheel")
    shutil.copy(pip, place / "wheels")
    (place / f"{own}.txt").write_text(f"wheels/overflight-0.0.1-py3-none-any.whl\nwheels/{pip.name}\n")
    (place / "MACHINE").write_text(platform.machine() + "\n")
    shutil.copy(archive.HERE / "install.sh", place)
    seal(place)
    return place


def seal(place: Path) -> None:
    """Write the sums of an archive."""
    files = [path for path in place.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(place)}\n" for path in files)
    (place / "SHA256SUMS").write_text("".join(sums))


def install(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installer with nothing in its environment but where this Python is."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(place.parent), "PYTHON": sys.executable}
    command = ["sh", str(place / "install.sh"), "--prefix", str(place.parent / PREFIX), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_installing_again_changes_nothing_and_removing_leaves_nothing(packed: Path) -> None:
    """Install, install again, upgrade with the old version kept for what still runs, remove, remove again."""
    prefix = packed.parent / PREFIX
    first = install(packed)
    assert first.returncode == 0, first.stderr
    assert "overflight 0.0.1 in" in first.stdout
    complete = next(prefix.glob("versions/*/complete"))
    stamp = complete.stat().st_mtime_ns
    assert install(packed).returncode == 0
    assert complete.stat().st_mtime_ns == stamp
    assert (prefix / "venv/bin/overflight").resolve().is_relative_to(complete.parent)
    (packed / "note").write_text("a newer archive")
    seal(packed)
    assert install(packed).returncode == 0
    assert len(list(prefix.glob("versions/*"))) == 2
    for _ in range(2):
        assert install(packed, "--uninstall").returncode == 0
        assert not prefix.exists()


@pytest.mark.slow
def test_a_half_made_installation_is_made_again(packed: Path) -> None:
    """Power was cut while installing: what is not complete is not used."""
    prefix = packed.parent / PREFIX
    assert install(packed).returncode == 0
    place = next(prefix.glob("versions/*"))
    (place / "complete").unlink()
    shutil.rmtree(next(place.glob("lib/python*")))
    again = install(packed)
    assert again.returncode == 0, again.stderr
    flown = subprocess.run([prefix / "bin/overflight"], env={}, capture_output=True, check=False, text=True)
    assert (flown.returncode, flown.stdout) == (0, "0.0.1\n"), flown.stderr


def test_what_the_installer_refuses(packed: Path) -> None:
    """A damaged archive, another machine, a Python it has no wheels for, a prefix that is everything."""
    (packed / "note").write_text("slipped in")
    seal(packed)
    (packed / "note").write_text("damaged")
    refused = install(packed)
    assert (refused.returncode, "damaged" in refused.stderr) == (1, True)
    (packed / "MACHINE").write_text("pdp11\n")
    assert install(packed).returncode == 3
    (packed / "MACHINE").write_text(platform.machine() + "\n")
    next(packed.glob("cp3*.txt")).rename(packed / "cp26.txt")
    refused = install(packed)
    assert (refused.returncode, "set PYTHON=" in refused.stderr) == (3, True)
    assert install(packed, "--prefix", "/").returncode == 1
    assert install(packed, "--perfix", "x").returncode == 2
    assert not (packed.parent / PREFIX).exists()


@pytest.mark.slow
def test_an_uninstall_never_empties_a_folder_of_others(packed: Path) -> None:
    """A prefix that holds other things keeps them."""
    prefix = packed.parent / PREFIX
    assert install(packed).returncode == 0
    (prefix / "flights").mkdir()
    assert install(packed, "--uninstall").returncode == 0
    assert [path.name for path in prefix.iterdir()] == ["flights"]
