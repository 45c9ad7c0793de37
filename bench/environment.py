"""Virtual environments of peers: each uses the packages of this one and installs what is missing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from typing import TYPE_CHECKING

from overflight.runtime.errors import MissingError
from overflight.runtime.paths import home

if TYPE_CHECKING:
    from pathlib import Path


def python_of(peer: str, requirements: tuple[str, ...]) -> str:
    """Return the interpreter that has a peer's requirements: this one where they are all here, else one made for it.

    Raises MissingError where they cannot be installed.
    """
    if all(_is_here(requirement) for requirement in requirements):
        return sys.executable
    key = hashlib.sha256(" ".join((sys.version, sys.prefix, *requirements)).encode()).hexdigest()[:8]
    place = home() / "peers" / f"{peer}-{key}"
    python = place / "bin" / "python"
    if not (place / "complete").is_file():
        _make(place, python, requirements, peer)
    return str(python)


def _make(place: Path, python: Path, requirements: tuple[str, ...], peer: str) -> None:
    venv.create(place, with_pip=True, clear=True, symlinks=True)
    folder = next((place / "lib").glob("python3*")) / "site-packages"
    # Our packages come after its own, so that what is installed here (torch is 2 GB) is not downloaded again.
    (folder / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    # Packages used from here keep their version: another torch would be another peer.
    kept = place / "kept.txt"
    kept.write_text("".join(f"{name}=={version}\n" for name, version in _here("torch", "numpy")), encoding="utf-8")
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--constraint", kept, *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise MissingError(f"{peer}: its environment cannot be made ({errors[-1]}); needs {', '.join(requirements)}")
    (place / "complete").touch()


def _here(*names: str) -> list[tuple[str, str]]:
    return [(name, metadata.version(name).partition("+")[0]) for name in names if _is_here(name)]


def _is_here(requirement: str) -> bool:
    try:
        metadata.distribution(requirement.partition(">")[0].partition("=")[0])
    except metadata.PackageNotFoundError:
        return False
    return True
