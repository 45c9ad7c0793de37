"""Which board this is: the module, its Jetson Linux release, and the JetPack that goes with it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from overflight.jetson import sysfs
from overflight.jetson.telemetry import on_device

_RELEASE = re.compile(r"R(\d+)\s*\(release\)\s*,\s*REVISION:\s*(\d+(?:\.\d+)*)", re.ASCII)
_CORE = re.compile(r"^Package: nvidia-l4t-core\n(?:.+\n)*?Version: (\d+(?:\.\d+)*)", re.MULTILINE | re.ASCII)


@dataclass(frozen=True)
class Mode:
    """A power mode's published ceiling: GPU clock in MHz, memory bandwidth in GB/s."""

    name: str
    gpu_mhz: int
    bandwidth_gbs: float


@dataclass(frozen=True)
class Module:
    """A module and its published peaks; operations are dense and counted per multiprocessor and clock."""

    key: str
    name: str
    model: str
    skus: tuple[str, ...]
    memory_gb: int
    sms: int
    int8_per_clock: int
    fp16_per_clock: int
    modes: tuple[Mode, ...]


@dataclass(frozen=True)
class JetPack:
    """The versions of Python, CUDA and TensorRT in a release, where they are fixed, e.g. "3.10", "10.3"."""

    l4t: str
    jetpack: str
    python: str
    cuda: str
    tensorrt: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """A Jetson as found; ``installed_l4t`` is the release of the installed packages, if dpkg knows it."""

    model: str
    l4t: str | None
    installed_l4t: str | None
    jetpack: JetPack | None
    module: Module | None


def identify(root: Path = Path("/")) -> Board | None:
    """Identify the board whose file system lies under ``root``; None if it is not a Jetson."""
    model = sysfs.text(root / "proc/device-tree/model") or sysfs.text(root / "sys/firmware/devicetree/base/model") or ""
    release = parse_release(sysfs.text(root / "etc/nv_tegra_release") or "")
    installed = _installed_release(root)
    if release is None and installed is None and "jetson" not in model.lower() and not on_device(root):
        return None
    l4t = release or installed
    return Board(
        model or "unknown Jetson", l4t, installed, None if l4t is None else jetpack_of(l4t), _module(root, model)
    )


def parse_release(line: str) -> str | None:
    """Turn ``# R36 (release), REVISION: 4.3, GCID: …`` into "36.4.3"; None for anything else."""
    found = _RELEASE.search(line)
    return f"{int(found[1])}.{found[2]}" if found else None


def jetpack_of(l4t: str) -> JetPack | None:
    """Look a release up; None if the table has no row for it."""
    rows = [row for row in jetpacks() if f"{l4t}.".startswith(f"{row.l4t}.")]
    return max(rows, key=lambda row: len(row.l4t), default=None)


@cache
def jetpacks() -> tuple[JetPack, ...]:
    """Return the table of releases."""
    return tuple(JetPack(**{**row, "tensorrt": tuple(row["tensorrt"])}) for row in _table("jetpacks.toml")["jetpack"])


@cache
def modules() -> tuple[Module, ...]:
    """Return the table of modules."""
    return tuple(
        Module(**{**row, "skus": tuple(row["skus"]), "modes": tuple(Mode(**mode) for mode in row["modes"])})
        for row in _table("boards.toml")["board"]
    )


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that the kernel manages, in bytes (without the board's carve-outs)."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", sysfs.text(root / "proc/meminfo") or "", re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else None


def _installed_release(root: Path) -> str | None:
    found = _CORE.search(sysfs.text(root / "var/lib/dpkg/status") or "")
    return found[1] if found else None


def _module(root: Path, model: str) -> Module | None:
    compatible = sysfs.text(root / "proc/device-tree/compatible") or ""
    for module in modules():
        if any(sku in compatible for sku in module.skus):
            return module
    total = memory_bytes(root)
    alike = [module for module in modules() if module.model.lower() in model.lower()]
    if total is None or not alike:
        return None
    # Carve-outs only reduce memory: choose the smallest module that could have this much.
    return next(
        (module for module in sorted(alike, key=lambda m: m.memory_gb) if total <= module.memory_gb << 30), None
    )


def _table(name: str) -> dict[str, Any]:
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table: dict[str, Any] = toml.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return table
