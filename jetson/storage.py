"""Storage: free space and wear."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from overflight.jetson import sysfs

_EMMC_LIFE = re.compile(r"^0x([0-9a-fA-F]{2})\s+0x([0-9a-fA-F]{2})$")
_NVME_LOG_PAGE = 512


@dataclass(frozen=True)
class Wear:
    """One disk; ``spent`` is the share of its rated life that is used, from 0 to above 1."""

    device: str
    spent: float


@dataclass(frozen=True)
class Space:
    """Bytes free to this user on the file system that holds a directory, and whether it can be written."""

    free: int
    total: int
    writable: bool


def space(directory: Path) -> Space | None:
    """Examine the file system of ``directory`` (or of its nearest existing parent); None if it cannot be queried."""
    existing = next((path for path in (directory, *directory.parents) if path.is_dir()), None)
    if existing is None:
        return None
    try:
        if not hasattr(os, "statvfs"):  # Windows
            usage = shutil.disk_usage(existing)
            return Space(usage.free, usage.total, os.access(existing, os.W_OK))
        state = os.statvfs(existing)
    except OSError:
        return None
    writable = os.access(existing, os.W_OK) and not state.f_flag & os.ST_RDONLY
    return Space(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, writable)


def wear(root: Path = Path("/")) -> tuple[Wear, ...]:
    """Read the wear of every eMMC and NVMe disk that reports it."""
    found: list[Wear] = []
    for disk in sysfs.entries(root / "sys/block"):
        spent = parse_emmc_life(sysfs.text(disk / "device/life_time") or "")
        if spent is None and disk.name.startswith("nvme"):
            spent = _nvme_spent(root / "dev" / re.sub(r"n\d+$", "", disk.name))
        if spent is not None:
            found.append(Wear(disk.name, spent))
    return tuple(found)


def parse_emmc_life(life_time: str) -> float | None:
    """Turn JEDEC's two life-time estimates (``0x02 0x01``: steps of a tenth, the worse counts) into a share."""
    found = _EMMC_LIFE.match(life_time)
    steps = max(int(found[1], 16), int(found[2], 16)) if found else 0
    return None if steps == 0 else steps / 10


def parse_nvme_health(log: bytes) -> float | None:
    """Read "Percentage Used" (byte 5) off the 512-byte SMART log page of the NVM Express base specification."""
    return log[5] / 100 if len(log) >= _NVME_LOG_PAGE else None


def _nvme_spent(controller: Path) -> float | None:
    """Ask an NVMe controller for its health page; needs root, and answers None without."""
    import ctypes
    import fcntl
    import struct

    log = ctypes.create_string_buffer(_NVME_LOG_PAGE)
    # struct nvme_admin_cmd: opcode 2 is Get Log Page, all name spaces, page 2 in 128 double words.
    command = struct.pack(
        "<BBHIIIQQIIIIIIIIII", 2, 0, 0, 0xFFFFFFFF, 0, 0, 0, ctypes.addressof(log), 0, _NVME_LOG_PAGE,
        (_NVME_LOG_PAGE // 4 - 1) << 16 | 2, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    try:
        with controller.open("rb", buffering=0) as device:
            fcntl.ioctl(device, 0xC0484E41, bytearray(command))
    except OSError:
        return None
    return parse_nvme_health(log.raw)
