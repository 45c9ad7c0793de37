"""The power mode that nvpmodel selected, and the caps that are in effect."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from overflight.jetson import clocks, sysfs

_HEAD = re.compile(r"^<\s*POWER_MODEL\s+ID\s*=\s*(\d{1,4})\s+NAME\s*=\s*([^\s>]+)\s*>", re.ASCII)
_SETTING = re.compile(r"^(\w+)\s+(\w+)\s+(-?\d{1,18}|\w+)$", re.ASCII)
_STATUS = re.compile(r"pmode:\s*(\d{1,4})", re.ASCII)


@dataclass(frozen=True)
class PowerMode:
    """One mode of nvpmodel.conf: its settings as (unit, argument) -> value; -1 in the file is "no cap" and left out."""

    id: int
    name: str
    settings: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def gpu_max_khz(self) -> int | None:
        """The mode's cap of the GPU clock, or None for none."""
        hertz = self.settings.get(("GPU", "MAX_FREQ"))
        return None if hertz is None else hertz // 1000

    @property
    def cpu_max_khz(self) -> int | None:
        """The highest cap that the mode sets for a CPU cluster, or None for none."""
        caps = [value for (unit, what), value in self.settings.items() if what == "MAX_FREQ" and unit.startswith("CPU")]
        return max(caps, default=None)

    @property
    def cpus_online(self) -> int | None:
        """How many cores the mode keeps online, or None if it does not specify it."""
        cores = [value for (unit, _), value in self.settings.items() if unit == "CPU_ONLINE"]
        return sum(value == 1 for value in cores) if cores else None


def parse_modes(conf: str) -> dict[int, PowerMode]:
    """Read the modes of an nvpmodel.conf; lines that are neither a mode nor a setting are skipped."""
    modes: dict[int, PowerMode] = {}
    current: PowerMode | None = None
    for raw in conf.splitlines():
        line = raw.strip()
        if head := _HEAD.match(line):
            current = modes[int(head[1])] = PowerMode(int(head[1]), head[2])
        elif line.startswith("<"):
            current = None
        elif current is not None and (setting := _SETTING.match(line)) and setting[3].isdigit():
            current.settings[setting[1], setting[2]] = int(setting[3])
    return modes


def parse_status(status: str) -> int | None:
    """Turn ``pmode:0002 fmode:fan_mode_quiet`` into 2; None for anything else."""
    found = _STATUS.search(status)
    return int(found[1]) if found else None


def modes(root: Path = Path("/")) -> dict[int, PowerMode]:
    """Read the modes of this board, by number."""
    return parse_modes(sysfs.text(root / "etc/nvpmodel.conf") or "")


def current(root: Path = Path("/")) -> PowerMode | None:
    """Read the selected mode; the numbers differ per module, so rely on the name."""
    number = parse_status(sysfs.text(root / "var/lib/nvpmodel/status") or "")
    return None if number is None else modes(root).get(number, PowerMode(number, f"mode {number}"))


def unmet(mode: PowerMode, now: clocks.Clocks) -> list[str]:
    """List the mode's caps that are not in effect: a switch may need a reboot and fail silently."""
    said: list[str] = []
    if mode.cpus_online is not None and now.cpus and len(now.cpus) != mode.cpus_online:
        said.append(f"{len(now.cpus)} CPU cores online, the mode says {mode.cpus_online}")
    cap, real = mode.gpu_max_khz, now.gpu.max_khz if now.gpu else None
    if cap is not None and real is not None and abs(real - cap) > cap * 0.03:
        said.append(f"GPU limit {real // 1000} MHz, the mode says {cap // 1000} MHz")
    return said
