"""Verdicts on the device, each with its cure."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from overflight.jetson import checks, storage, sysfs

if TYPE_CHECKING:
    from collections.abc import Callable

    Grow = Callable[[str], Path]

NANO = "orin-nano-jetpack-6.2"


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", [NANO, "agx-orin-jetpack-7.2"])
def test_healthy_boards_are_fit(tree: Grow, tmp_path: Path, name: str) -> None:
    """Every check of a healthy board is ok, and none asks for a cure."""
    found = checks.check_device(tree(name), tmp_path, user="pilot")
    found = [check for check in found if check.name != "disk"]
    assert {check.verdict for check in found} == {"ok"}, found
    assert all(check.cure is None for check in found)
    assert len(found) == 10


def test_off_the_device_only_what_holds_everywhere(tmp_path: Path) -> None:
    """A laptop is not asked for a power mode."""
    names = [check.name for check in checks.check_device(tmp_path, tmp_path, user="pilot")]
    assert names == ["board", "memory", "clock", "disk", "camera", "groups"]


def test_half_an_upgrade(tree: Grow) -> None:
    """Packages of one release over the files of another."""
    root = tree(NANO)
    put(root, "var/lib/dpkg/status", "Package: nvidia-l4t-core\nStatus: ok\nVersion: 36.4.7-2025\n")
    check = checks.check_board(root)
    assert (check.verdict, "36.4.7" in check.found) == ("fail", True)
    assert check.cure is not None
    assert "full-upgrade" in check.cure


def test_unknown_release_is_said(tree: Grow) -> None:
    """A release that the table does not know is a warning, not a crash."""
    root = tree(NANO)
    put(root, "etc/nv_tegra_release", "# R41 (release), REVISION: 1.0, GCID: 1\n")
    put(root, "var/lib/dpkg/status", "")
    assert checks.check_board(root).verdict == "warn"


def test_jetpack_5_cannot_fly(tree: Grow) -> None:
    """Python 3.8 is too old."""
    root = tree(NANO)
    put(root, "etc/nv_tegra_release", "# R35 (release), REVISION: 6.0, GCID: 1\n")
    put(root, "var/lib/dpkg/status", "")
    assert checks.check_board(root).verdict == "fail"


def test_a_mode_that_is_not_in_force(tree: Grow) -> None:
    """The cure of a silent switch is a reboot."""
    root = tree(NANO)
    put(root, "var/lib/nvpmodel/status", "pmode:0003\n")
    check = checks.check_power(root)
    assert (check.verdict, check.cure) == ("fail", "sudo reboot")


def test_a_slower_mode_is_a_choice(tree: Grow) -> None:
    """25W is fine; the faster mode is named with its number."""
    check = checks.check_power(tree(NANO))
    assert check.verdict == "ok"
    assert "MAXN_SUPER would be faster (sudo nvpmodel -m 2)" in check.found


@pytest.mark.parametrize(("millidegrees", "verdict"), [(84_000, "ok"), (88_500, "warn"), (98_000, "fail")])
def test_heat(tree: Grow, millidegrees: int, verdict: str) -> None:
    """Hot is a warning, near the hardware's own throttling a refusal."""
    root = tree(NANO)
    put(root, "sys/class/thermal/thermal_zone5/temp", f"{millidegrees}\n")
    assert checks.check_heat(root).verdict == verdict


def test_a_weak_supply_is_remembered(tree: Grow) -> None:
    """Over-current events since boot are named in NVIDIA's words."""
    root = tree(NANO)
    put(root, "sys/class/hwmon/hwmon3/oc3_event_cnt", "27390\n")
    check = checks.check_supply(root)
    assert check.verdict == "warn"
    assert "27390 instantaneous over-current" in check.found


def test_torn_memory(tree: Grow) -> None:
    """Plenty free but not in large blocks: the GPU's allocations would fail."""
    root = tree(NANO)
    put(root, "proc/buddyinfo", "Node 0, zone   Normal   99207 40980 20610 9331 4150 2072 830 211 46 14 3\n")
    check = checks.check_memory(root)
    assert (check.verdict, "12 MiB" in check.found) == ("warn", True)


def test_no_swap_on_a_small_board(tree: Grow) -> None:
    """8 GB without swap may not survive building an engine."""
    root = tree(NANO)
    put(root, "proc/meminfo", "MemTotal: 7802876 kB\nMemAvailable: 5804120 kB\nSwapTotal: 0 kB\n")
    check = checks.check_swap(root)
    assert check.verdict == "warn"
    assert check.cure is not None
    assert "mkswap" in check.cure


def test_a_clock_from_before_the_program(tree: Grow) -> None:
    """A board that wakes in 1970 would write useless times."""
    root = tree(NANO)
    assert checks.check_clock(root, now_s=0.0).verdict == "fail"
    assert checks.check_clock(root, now_s=time.time() + 5, synchronised=False).verdict == "warn"


def test_a_silent_argus_daemon(tree: Grow) -> None:
    """A CSI camera without its daemon cannot open."""
    root = tree(NANO)
    (root / "tmp/argus_socket").unlink()
    check = checks.check_camera(root)
    assert (check.verdict, check.cure) == ("fail", "sudo systemctl restart nvargus-daemon")


def test_no_camera_is_a_warning(tmp_path: Path) -> None:
    """Files can be flown without one."""
    assert checks.check_camera(tmp_path).verdict == "warn"


def test_a_stranger_may_not_open_the_camera(tree: Grow) -> None:
    """Missing groups are named with the command that adds them, the serial line's too where there is one."""
    check = checks.check_groups(tree(NANO), user="guest")
    assert check.verdict == "fail"
    assert check.cure == "sudo usermod -aG video,render,dialout guest, then log in again"


def test_a_service_is_judged_by_the_groups_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the built image: no USER is set there, and a number is in nobody's list."""
    table = "video:x:44:overflight\nrender:x:999:overflight\naudio:x:29:\n"
    monkeypatch.setattr(sysfs, "text", lambda path: table if path == Path("/etc/group") else None)
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    monkeypatch.setattr(os, "getegid", lambda: 998)
    monkeypatch.setattr(os, "getgroups", lambda: [44, 999])
    assert checks.check_groups().verdict == "ok"
    monkeypatch.setattr(os, "getgroups", lambda: [44])
    check = checks.check_groups()
    assert check.verdict == "warn"
    assert "is not in render (the GPU)" in check.found


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little for a flight is a refusal, little a warning, a read-only disk a refusal."""
    for free, writable, verdict in ((1 << 28, True, "fail"), (1 << 30, True, "warn"), (1 << 40, False, "fail")):
        space = storage.Space(free, 1 << 40, writable)
        monkeypatch.setattr(storage, "space", lambda _, space=space: space)
        assert checks.check_disk(tmp_path).verdict == verdict


def test_a_worn_out_disk(tree: Grow) -> None:
    """An eMMC at nine tenths of its life."""
    root = tree(NANO)
    put(root, "sys/block/mmcblk0/device/life_time", "0x09 0x03\n")
    assert checks.check_wear(root).verdict == "warn"
