"""Checks of the device before a flight: a verdict each, what was found, and the command that fixes it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overflight.jetson import board, clocks, memory, power, rails, storage, sysfs, telemetry, thermal

_GIB = 1 << 30
# Building a TensorRT engine on an 8 GB board needs swap; a flight does not.
_SWAP_WANTED = 4 * _GIB
_SMALL_BOARD = 9 * _GIB
# Below this, NvMap allocations have failed although memory was free.
_LARGE_BLOCKS_WANTED = 64 << 20
_DISK_FLIGHT, _DISK_COMFORT = _GIB // 2, 4 * _GIB
_WORN_OUT = 0.8
_STALLING = 0.05


@dataclass(frozen=True)
class Check:
    """One finding. ``cure`` is the command or action that fixes it; None if there is nothing to fix."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    cure: str | None = None


def check_board(root: Path = Path("/")) -> Check:
    """Check that the board and its release are known, and that all packages are of one release."""
    it = board.identify(root)
    if it is None:
        return Check("board", "ok", "not a Jetson; the checks of the device are skipped")
    name = f"{it.model}, L4T {it.l4t or 'unknown'}"
    if it.installed_l4t and it.l4t and it.installed_l4t != it.l4t:
        found = f"{name}, but the packages are of L4T {it.installed_l4t}: an unfinished upgrade"
        return Check("board", "fail", found, "sudo apt update && sudo apt full-upgrade && sudo reboot")
    if it.jetpack is None:
        return Check("board", "warn", f"{name}: not in the table of releases", "see jetson/README.md for the boards")
    release = it.jetpack
    found = (
        f"{name} = JetPack {release.jetpack} (Python {release.python}, CUDA {release.cuda}, "
        f"TensorRT {' or '.join(release.tensorrt)})"
    )
    if int(release.l4t.split(".")[0]) < 36:
        return Check("board", "fail", f"{found}; JetPack 6.1 or later is needed", "flash JetPack 6.2 or 7.2")
    return Check("board", "ok", found)


def check_power(root: Path = Path("/")) -> Check:
    """Check that the selected power mode is in effect."""
    mode, now = power.current(root), clocks.read(root)
    if mode is None:
        return Check("power mode", "warn", "nvpmodel has no mode", "sudo systemctl start nvpmodel")
    limits = [f"{len(now.cpus)} CPU cores"] if now.cpus else []
    limits += [f"CPU to {caps[-1] // 1000} MHz"] if (caps := sorted(c.max_khz for c in now.cpus if c.max_khz)) else []
    limits += [f"GPU to {now.gpu.max_khz // 1000} MHz"] if now.gpu and now.gpu.max_khz else []
    found = f"{mode.name} (mode {mode.id}): {', '.join(limits)}; clocks {'locked' if now.locked else 'free'}"
    if missed := power.unmet(mode, now):
        return Check("power mode", "fail", f"{found}; not in force: {'; '.join(missed)}", "sudo reboot")
    if faster := _faster_mode(root, mode):
        found += f"; {faster.name} would be faster (sudo nvpmodel -m {faster.id})"
    return Check("power mode", "ok", found)


def check_heat(root: Path = Path("/")) -> Check:
    """Check the temperature, and whether a clock is throttled."""
    zones, slowed = thermal.zones(root), thermal.throttling(root)
    if not zones:
        return Check("heat", "ok", "no thermal zone can be read")
    name, hottest = max(zones.items(), key=lambda item: item[1])
    found = f"{name} is the hottest at {hottest:.1f} °C" + (f"; slowed by {', '.join(slowed)}" if slowed else "")
    if hottest < thermal.HOT_C and not slowed:
        return Check("heat", "ok", found)
    cure = "clear the heat sink, then: sudo systemctl restart nvfancontrol"
    return Check("heat", "fail" if hottest >= thermal.CRITICAL_C else "warn", found, cure)


def check_supply(root: Path = Path("/")) -> Check:
    """Check for over-current and under-voltage events since boot."""
    events = {name: count for name, count in telemetry.over_current(root).items() if count}
    alarms = [rail.name for rail in rails.read(root) if rail.alarm]
    if not events and not alarms:
        return Check("supply", "ok", "no over-current or under-voltage event since boot")
    said = [f"{count} {telemetry.OVER_CURRENT.get(name, name)} events since boot" for name, count in events.items()]
    said += [f"active alarm on {name}" for name in alarms]
    return Check("supply", "warn", "; ".join(said), "use a stronger supply, or a lower mode: sudo nvpmodel -m 1")


def check_memory(root: Path = Path("/")) -> Check:
    """Check free memory, its fragmentation and its pressure."""
    state = memory.read(root)
    if state is None:
        return Check("memory", "warn", "no /proc/meminfo")
    found = f"{state.available / _GIB:.1f} of {state.total / _GIB:.1f} GiB available"
    torn = state.large_blocks is not None and state.large_blocks < _LARGE_BLOCKS_WANTED
    if torn and telemetry.on_device(root):
        found += f", but only {(state.large_blocks or 0) >> 20} MiB of it in blocks of 4 MiB, which the GPU needs"
        return Check("memory", "warn", found, "echo 1 | sudo tee /proc/sys/vm/compact_memory, or sudo reboot")
    if state.stalled is not None and state.stalled > _STALLING:
        found += f"; tasks waited for memory {state.stalled:.0%} of the last ten seconds"
        return Check("memory", "warn", found, "stop the desktop: sudo systemctl isolate multi-user.target")
    return Check("memory", "ok", found)


def check_swap(root: Path = Path("/")) -> Check:
    """Check that there is swap for building an engine on a small board."""
    state = memory.read(root)
    if state is None or state.total > _SMALL_BOARD or not telemetry.on_device(root):
        return Check("swap", "ok", "none needed" if state is None else f"{state.swap_total / _GIB:.1f} GiB")
    found = f"{state.swap_total / _GIB:.1f} GiB of swap with {state.total / _GIB:.1f} GiB of memory"
    if state.swap_total >= _SWAP_WANTED:
        return Check("swap", "ok", found)
    cure = (
        "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile"
    )
    return Check("swap", "warn", f"{found}; building an engine may run out", cure)


def check_clock(root: Path = Path("/"), now_s: float | None = None, synchronised: bool | None = None) -> Check:
    """Check that the wall clock is plausible. Without a network a Jetson boots with a time in the past."""
    now_s = time.time() if now_s is None else now_s
    said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    # The time must be later than the installation of this file.
    if now_s < Path(__file__).stat().st_mtime:
        cure = "sudo date -s '2026-01-31 12:00' (the right time), or connect to a network once"
        return Check("clock", "fail", f"{said}, which is before this program was installed", cure)
    if synchronised is None:
        synchronised = (root / "run/systemd/timesync/synchronized").exists()
    if not synchronised:
        cure = "sudo timedatectl set-ntp true (needs a network once)"
        return Check("clock", "warn", f"{said}, not synchronised since boot", cure)
    return Check("clock", "ok", f"{said}, synchronised")


def check_disk(directory: Path) -> Check:
    """Check that a flight can be written under ``directory``, and for how long."""
    space = storage.space(directory)
    if space is None:
        return Check("disk", "fail", f"{directory}: no such directory", f"mkdir -p {directory}")
    if not space.writable:
        return Check(
            "disk", "fail", f"{directory} cannot be written", "choose another with --out, or mount it writable"
        )
    found = f"{space.free / _GIB:.1f} of {space.total / _GIB:.1f} GiB free under {directory}"
    if space.free < _DISK_FLIGHT:
        return Check(
            "disk", "fail", found, "delete old flights, then: sudo apt clean && sudo journalctl --vacuum-size=50M"
        )
    if space.free < _DISK_COMFORT:
        return Check("disk", "warn", found, "sudo apt clean && sudo journalctl --vacuum-size=50M")
    return Check("disk", "ok", found)


def check_wear(root: Path = Path("/")) -> Check:
    """Check the wear of disks."""
    worn = storage.wear(root)
    if not worn:
        return Check("wear", "ok", "no disk reports its wear (NVMe reports it to root only)")
    found = ", ".join(f"{disk.device} {disk.spent:.0%} used" for disk in worn)
    bad = max(disk.spent for disk in worn) >= _WORN_OUT
    return Check("wear", "warn" if bad else "ok", found, "copy the flights off and replace the disk" if bad else None)


def check_camera(root: Path = Path("/")) -> Check:
    """Check for a camera, and for the daemon of CSI cameras."""
    nodes = sysfs.entries(root / "dev", "video[0-9]*")
    named = [
        f"/dev/{node.name} ({sysfs.text(root / 'sys/class/video4linux' / node.name / 'name') or 'unnamed'})"
        for node in nodes
    ]
    if not named:
        return Check(
            "camera", "warn", "none found; files and network streams only", "ls -l /dev/video* after plugging in"
        )
    csi = any("vi-output" in name for name in named)
    if csi and not (root / "tmp/argus_socket").exists():
        found = f"{', '.join(named)}, but nvargus-daemon does not answer"
        return Check("camera", "fail", found, "sudo systemctl restart nvargus-daemon")
    return Check("camera", "ok", ", ".join(named))


def check_groups(root: Path = Path("/"), user: str | None = None) -> Check:
    """Check that ``user`` may open cameras, the GPU and the autopilot's serial port.

    By default this process: the groups that it has count, by number. Services and containers have no ``USER``, and a
    group that was only just added is not yet in force.
    """
    if not hasattr(os, "geteuid"):
        return Check("groups", "ok", "this system has no groups for devices")
    if user is None and os.geteuid() == 0:
        return Check("groups", "ok", "root may open everything")
    table = sysfs.text(root / "etc/group") or ""
    members = parse_groups(table)
    if user is None and root == Path("/"):
        user = os.environ.get("USER") or str(os.getuid())
        members = {group: [user] if group in _own_groups(table) else [] for group in members}
    user = user or os.environ.get("USER") or str(os.getuid())
    wanted = {"video": "cameras", "render": "the GPU"}
    if any(sysfs.entries(root / "dev", pattern) for pattern in ("ttyTHS*", "ttyACM*", "ttyUSB*")):
        wanted["dialout"] = "serial telemetry"
    missing = {group: use for group, use in wanted.items() if group in members and user not in members[group]}
    if not missing:
        return Check(
            "groups", "ok", f"{user} is in {', '.join(group for group in wanted if group in members) or 'none'}"
        )
    found = f"{user} is not in " + ", ".join(f"{group} ({use})" for group, use in missing.items())
    cure = f"sudo usermod -aG {','.join(missing)} {user}, then log in again"
    return Check("groups", "fail" if telemetry.on_device(root) and "video" in missing else "warn", found, cure)


def _own_groups(table: str) -> list[str]:
    """Name the groups of this process by the table."""
    numbers = {str(number) for number in (os.getegid(), *os.getgroups())}
    return [row[0] for row in (line.split(":") for line in table.splitlines()) if len(row) == 4 and row[2] in numbers]


def parse_groups(table: str) -> dict[str, list[str]]:
    """Read /etc/group into group name -> members."""
    rows = (line.split(":") for line in table.splitlines())
    return {row[0]: row[3].split(",") if row[3] else [] for row in rows if len(row) == 4}


def check_device(root: Path, directory: Path, user: str | None = None) -> list[Check]:
    """Run every check of the device; on other computers only those that apply there."""
    everywhere = [check_memory(root), check_clock(root, synchronised=kernel_clock(root)), check_disk(directory)]
    everywhere += [check_camera(root), check_groups(root, user)]
    if not telemetry.on_device(root):
        return [check_board(root), *everywhere]
    return [
        check_board(root), check_power(root), check_heat(root), check_supply(root), check_swap(root), check_wear(root),
        *everywhere,
    ]  # fmt: skip


def kernel_clock(root: Path) -> bool | None:
    """Ask the running kernel whether its clock is synchronised; None for a copied file system."""
    if root != Path("/"):
        return None
    import ctypes

    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256))
    time_error = 5
    return None if state < 0 else bool(state != time_error)


def _faster_mode(root: Path, mode: power.PowerMode) -> power.PowerMode | None:
    """Find the mode with the highest GPU cap; no cap counts as the highest."""
    if not mode.gpu_max_khz:
        return None
    best = max(power.modes(root).values(), key=lambda other: other.gpu_max_khz or 1 << 40, default=mode)
    faster = best.gpu_max_khz is None or best.gpu_max_khz > mode.gpu_max_khz
    return best if faster and re.search(r"\d|MAX", best.name) else None
