"""Readings of a discrete GPU, from lines as nvidia-smi prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.jetson import nvidia_smi


def test_a_line_becomes_a_reading() -> None:
    """MHz, share, °C and watts; the draw in milliwatts as everywhere."""
    reading = nvidia_smi.parse("1410, 1980, 97, 43, 312.41\n")
    assert reading is not None
    assert (reading.gpu_mhz, reading.gpu_limit_mhz, reading.gpu_load) == (1410, 1980, 0.97)
    assert (reading.temperatures_c, reading.power_mw) == ({"gpu": 43.0}, 312410)


def test_what_a_gpu_does_not_report_is_left_out() -> None:
    """Laptops hide their draw."""
    reading = nvidia_smi.parse("210, 2100, [N/A], 38, [Not Supported]")
    assert reading is not None
    assert (reading.gpu_load, reading.power_mw) == (None, None)


@pytest.mark.parametrize("line", ["", "No devices were found", "[N/A], [N/A], [N/A], [N/A], [N/A]", "1, 2"])
def test_no_gpu_is_no_reading(line: str) -> None:
    """Whatever the tool prints instead."""
    assert nvidia_smi.parse(line) is None


def test_a_machine_without_the_tool_has_no_reading(tmp_path: Path) -> None:
    """Not installed, or failing."""
    assert nvidia_smi.read("no-such-nvidia-smi") is None
    assert nvidia_smi.read("false") is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '1410, 1980, 97, 43, 312.41'\n")
    tool.chmod(0o755)
    reading = nvidia_smi.read(str(tool))
    assert reading is not None
    assert reading.gpu_mhz == 1410
