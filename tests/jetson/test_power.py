"""Power modes: what was chosen, and what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from overflight.jetson import clocks, power

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Grow = Callable[[str], Path]


def test_current_mode_and_its_caps(tree: Grow) -> None:
    """Mode 1 of an Orin Nano is 25W, not what its number suggests; -1 in the file is no cap."""
    root = tree("orin-nano-jetpack-6.2")
    mode = power.current(root)
    assert mode is not None
    assert (mode.id, mode.name, mode.gpu_max_khz, mode.cpu_max_khz, mode.cpus_online) == (1, "25W", 918000, 1344000, 6)
    assert power.modes(root)[2].gpu_max_khz is None
    assert power.unmet(mode, clocks.read(root)) == []


def test_a_switch_that_needs_a_reboot_is_seen(tree: Grow) -> None:
    """nvpmodel reports the new mode while cores and clocks are still the old one's."""
    root = tree("orin-nano-jetpack-6.2")
    (root / "var/lib/nvpmodel/status").write_text("pmode:0003 fmode:fan_mode_quiet\n")
    mode = power.current(root)
    assert mode is not None
    said = power.unmet(mode, clocks.read(root))
    assert said == ["6 CPU cores online, the mode says 4", "GPU limit 918 MHz, the mode says 408 MHz"]


def test_locked_clocks(tree: Grow) -> None:
    """jetson_clocks sets the lower limit to the upper."""
    assert clocks.read(tree("agx-orin-jetpack-7.2")).locked
    assert not clocks.read(tree("orin-nano-jetpack-6.2")).locked


def test_offline_cores_are_counted(tree: Grow) -> None:
    """A core that is offline has no clock."""
    root = tree("orin-nano-jetpack-6.2")
    (root / "sys/devices/system/cpu/cpu5/online").write_text("0\n")
    state = clocks.read(root)
    assert (len(state.cpus), state.cpus_offline) == (5, 1)


def test_off_device(tmp_path: Path) -> None:
    """No mode, no clocks, no failure."""
    assert power.current(tmp_path) is None
    assert clocks.read(tmp_path) == clocks.Clocks((), 0, None, None)


@given(st.text(max_size=400))
def test_status_parser_never_fails(text: str) -> None:
    """A status is a number or None."""
    number = power.parse_status(text)
    assert number is None or number >= 0


_line = st.one_of(
    st.text(max_size=40),
    st.builds("< POWER_MODEL ID={} NAME={} >".format, st.integers(-1, 10**9), st.text("AZ_09", max_size=8)),
    st.builds("GPU MAX_FREQ {}".format, st.integers(-1, 10**12)),
    st.just("CPU_ONLINE CORE_0 1"),
)


@given(st.lists(_line, max_size=20).map("\n".join))
def test_conf_parser_never_fails(conf: str) -> None:
    """Whatever stands in nvpmodel.conf, modes come out with whole numbers."""
    for number, mode in power.parse_modes(conf).items():
        assert number == mode.id
        assert all(value >= 0 for value in mode.settings.values())
