"""Clocks: the current frequency of each CPU core and of the GPU, and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overflight.jetson import sysfs

_GPU_LOADS = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")


@dataclass(frozen=True)
class Clock:
    """One clock in kHz: now, the limits in effect, and the maximum of the hardware."""

    name: str
    now_khz: int | None
    min_khz: int | None
    max_khz: int | None
    ceiling_khz: int | None

    @property
    def locked(self) -> bool:
        """Whether lower and upper limit are the same, as ``jetson_clocks`` sets them."""
        return self.max_khz is not None and self.min_khz == self.max_khz


@dataclass(frozen=True)
class Clocks:
    """The online CPU cores (offline cores are only counted), and the GPU; ``gpu_load`` from 0 to 1."""

    cpus: tuple[Clock, ...]
    cpus_offline: int
    gpu: Clock | None
    gpu_load: float | None

    @property
    def locked(self) -> bool:
        """Whether every known clock is locked."""
        known = [*self.cpus, *([self.gpu] if self.gpu else [])]
        return bool(known) and all(clock.locked for clock in known)


def read(root: Path = Path("/")) -> Clocks:
    """Read the clocks under ``root``; what is absent is empty or None."""
    cores = sysfs.entries(root / "sys/devices/system/cpu", "cpu[0-9]*")
    online = [core for core in cores if sysfs.number(core / "online") != 0]
    gpu = gpu_directory(root)
    return Clocks(
        cpus=tuple(_cpu(core) for core in online if (core / "cpufreq").is_dir()),
        cpus_offline=len(cores) - len(online),
        gpu=None if gpu is None else _gpu(gpu),
        gpu_load=gpu_load(root, gpu),
    )


def gpu_directory(root: Path) -> Path | None:
    """Find the GPU's devfreq node: 17000000.gpu and 17000000.ga10b (Orin), gpu-gpc-0 (Thor)."""
    nodes = sysfs.entries(root / "sys/class/devfreq")
    return next((node for node in nodes if any(word in node.name for word in ("gpc", "ga10b", ".gpu"))), None)


def gpu_load(root: Path, gpu: Path | None) -> float | None:
    """Read the share of time that the GPU was busy; the kernel gives it in per mille."""
    nodes = [*([gpu / "device/load"] if gpu else []), *(root / node for node in _GPU_LOADS)]
    loads = (sysfs.number(node) for node in nodes)
    load = next((load for load in loads if load is not None), None)
    return None if load is None else min(max(load / 1000, 0.0), 1.0)


def _cpu(core: Path) -> Clock:
    names = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    return Clock(core.name, *(sysfs.number(core / "cpufreq" / name) for name in names))


def _gpu(node: Path) -> Clock:
    def khz(name: str) -> int | None:
        hertz = sysfs.number(node / name)
        return None if hertz is None else hertz // 1000

    steps = [int(step) // 1000 for step in (sysfs.text(node / "available_frequencies") or "").split() if step.isdigit()]
    return Clock("gpu", khz("cur_freq"), khz("min_freq"), khz("max_freq"), max(steps, default=None))
