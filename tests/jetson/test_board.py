"""Which board, which release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.jetson import board

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Grow = Callable[[str], Path]


def test_orin_nano_on_jetpack_6_2(tree: Grow) -> None:
    """An Orin Nano of 8 GB is named by its part number, its release by the table."""
    it = board.identify(tree("orin-nano-jetpack-6.2"))
    assert it is not None
    assert it.l4t == it.installed_l4t == "36.4.3"
    assert it.module is not None
    assert it.jetpack is not None
    assert (it.module.key, it.jetpack.jetpack, it.jetpack.python) == ("orin-nano-8gb", "6.2", "3.10")
    assert "\0" not in it.model


def test_agx_orin_on_jetpack_7_2(tree: Grow) -> None:
    """An AGX Orin of 64 GB on the first release of JetPack 7.2."""
    it = board.identify(tree("agx-orin-jetpack-7.2"))
    assert it is not None
    assert it.module is not None
    assert it.jetpack is not None
    assert (it.module.key, it.jetpack.jetpack, it.jetpack.tensorrt) == ("agx-orin-64gb", "7.2", ("10.16",))


def test_without_part_number_the_memory_decides(tree: Grow) -> None:
    """A carrier board that tells no part number is named by its model and its memory."""
    root = tree("orin-nano-jetpack-6.2")
    (root / "proc/device-tree/compatible").unlink()
    it = board.identify(root)
    assert it is not None
    assert it.module is not None
    assert it.module.key == "orin-nano-8gb"


def test_a_computer_is_no_board(tmp_path: Path) -> None:
    """Off the device there is no board."""
    assert board.identify(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "release"),
    [
        ("# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64", "36.4.7"),
        ("# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic", "39.2.1"),
        ("# R35 (release), REVISION: 6.0, GCID: 0", "35.6.0"),
        ("", None),
        ("R36", None),
    ],
)
def test_release_lines(line: str, release: str | None) -> None:
    """The first line of nv_tegra_release, as boards write it."""
    assert board.parse_release(line) == release


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("36.4.3", "6.2"), ("36.4.0", "6.1"), ("36.4.7", "6.2.1"), ("36.5.0", "6.2.2"), ("38.4.0", "7.1"),
     ("39.2.1", "7.2.1"), ("39.2.2", "7.2.2"), ("36.40.0", None), ("40.1", None)],
)  # fmt: skip
def test_releases(l4t: str, jetpack: str | None) -> None:
    """The longest row that fits wins, and a number is never cut in two."""
    row = board.jetpack_of(l4t)
    assert (row.jetpack if row else None) == jetpack


@given(st.text(max_size=300))
def test_release_parser_never_fails(text: str) -> None:
    """Whatever stands in the file, the answer is a release or None."""
    release = board.parse_release(text)
    assert release is None or release.split(".")[0].isdigit()


def test_published_tops_come_out_of_the_table() -> None:
    """Multiprocessors, clock and operations per clock give the sparse int8 TOPS that NVIDIA publishes for the GPU."""
    published = {"orin-nano-4gb": 34, "orin-nano-8gb": 67, "orin-nx-8gb": 77, "orin-nx-16gb": 77, "agx-orin-32gb": 108,
                 "agx-orin-64gb": 170, "thor-t4000": 600, "thor-t5000": 1035}  # fmt: skip
    for module in board.modules():
        fastest = module.modes[-1].gpu_mhz
        tops = 2 * module.sms * module.int8_per_clock * fastest * 1e6 / 1e12
        assert tops == pytest.approx(published[module.key], rel=0.02), module.key
