"""Memory and storage as the kernel tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from overflight.jetson import memory, storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Grow = Callable[[str], Path]


def test_memory_of_an_orin_nano(tree: Grow) -> None:
    """Totals in bytes, and what is free in blocks of 4 MiB: that is what the GPU needs."""
    state = memory.read(tree("orin-nano-jetpack-6.2"))
    assert state is not None
    assert state.total == 7802876 << 10
    assert state.large_blocks == (220 + 611) * (4 << 20)
    assert (state.stalled, state.oom_kills) == (0.0, 0)


def test_no_meminfo_is_no_memory(tmp_path: Path) -> None:
    """Where nothing is known, nothing is claimed."""
    assert memory.read(tmp_path) is None


@given(st.text(max_size=300))
def test_buddyinfo_parser_never_fails(table: str) -> None:
    """Any text gives bytes or None."""
    free = memory.parse_buddyinfo(table)
    assert free is None or free >= 0


def test_emmc_wear_is_the_worse_estimate(tree: Grow) -> None:
    """JEDEC's two estimates count in tenths; the worse one counts."""
    assert storage.wear(tree("orin-nano-jetpack-6.2")) == (storage.Wear("mmcblk0", 0.2),)
    assert storage.parse_emmc_life("0x00 0x00") is None
    assert storage.parse_emmc_life("junk") is None


def test_nvme_wear_is_byte_five() -> None:
    """Percentage Used stands in byte 5 of the health page and may pass 100."""
    assert storage.parse_nvme_health(bytes([0, 0, 0, 0, 0, 103]) + bytes(506)) == 1.03
    assert storage.parse_nvme_health(b"") is None


def test_space_of_a_folder_that_is_not_yet_there(tmp_path: Path) -> None:
    """The nearest existing parent answers."""
    state = storage.space(tmp_path / "a/b")
    assert state is not None
    assert state.writable
    assert 0 < state.free <= state.total
