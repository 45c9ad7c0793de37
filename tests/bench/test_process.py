"""Whole commands: what is counted is the command's own."""

from __future__ import annotations

from overflight.bench.process import measure_making


def test_the_peak_of_a_command_is_its_own() -> None:
    """A command started by a process that holds 600 MB is not charged with them, as ``ru_maxrss`` would."""
    held = bytearray(600_000_000)
    held[::4096] = b"\1" * len(held[::4096])
    (row,) = measure_making("export", ["--help"], "none")
    assert 5e6 < row.figures["peak_bytes"] < 300e6
    assert row.figures["cpu_s"] > 0
