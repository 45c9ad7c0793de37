"""Memory: free bytes, fragmentation, and pressure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from overflight.jetson import sysfs

_FIELD = re.compile(r"^(\w+):\s+(\d{1,15}) kB", re.MULTILINE | re.ASCII)
_STALL = re.compile(r"^some avg10=(\d{1,3}\.\d+)", re.MULTILINE | re.ASCII)
# Tegra's NvMap needs physically contiguous memory: 4 MiB blocks, order 10 of the buddy allocator.
_LARGE_ORDER = 10
_PAGE = 4096


@dataclass(frozen=True)
class Memory:
    """Bytes, as the kernel counts them. ``large_blocks`` is what is free in blocks of at least 4 MiB; ``stalled`` the
    share of the last ten seconds in which some task waited for memory; ``oom_kills`` those since boot."""

    total: int
    available: int
    swap_total: int
    swap_free: int
    large_blocks: int | None
    stalled: float | None
    oom_kills: int | None


def read(root: Path = Path("/")) -> Memory | None:
    """Read the state of memory; None if there is no /proc/meminfo."""
    fields = {name: int(kilobytes) << 10 for name, kilobytes in _FIELD.findall(_text(root, "proc/meminfo"))}
    if "MemTotal" not in fields:
        return None
    stalled = _STALL.search(_text(root, "proc/pressure/memory"))
    kills = re.search(r"^oom_kill (\d+)$", _text(root, "proc/vmstat"), re.MULTILINE | re.ASCII)
    return Memory(
        total=fields["MemTotal"],
        available=fields.get("MemAvailable", fields.get("MemFree", 0)),
        swap_total=fields.get("SwapTotal", 0),
        swap_free=fields.get("SwapFree", 0),
        large_blocks=parse_buddyinfo(_text(root, "proc/buddyinfo")),
        stalled=float(stalled[1]) / 100 if stalled else None,
        oom_kills=int(kills[1]) if kills else None,
    )


def limit(root: Path = Path("/")) -> tuple[int | None, int]:
    """Read this process's own memory limit and use in bytes, as set by a service or a container; None for no limit."""
    group = next((line[3:] for line in _text(root, "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    place = root / "sys/fs/cgroup" / group.lstrip("/")
    most = sysfs.number(place / "memory.max")
    return most, sysfs.number(place / "memory.current") or 0


def parse_buddyinfo(table: str) -> int | None:
    """Add up the free bytes in blocks of 4 MiB and more, over all zones; None if the table is absent."""
    rows = [line.split("zone", 1)[1].split()[1:] for line in table.splitlines() if "zone" in line]
    counts = [[int(cell) for cell in row if cell.isdigit()] for row in rows]
    if not any(counts):
        return None
    return sum(count * (_PAGE << order) for row in counts for order, count in enumerate(row) if order >= _LARGE_ORDER)


def _text(root: Path, name: str) -> str:
    return sysfs.text(root / name) or ""
