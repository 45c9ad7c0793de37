"""Segments: written row by row, mapped back, and converted exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.runtime.errors import OverflightError
from overflight.station.archive.segment import open_segment, to_float32, write_segment

if TYPE_CHECKING:
    from pathlib import Path


def test_every_finite_half_is_converted_exactly() -> None:
    """All 63,488 of them, subnormal numbers and both zeros too."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    out = np.empty(len(finite), np.float32)
    to_float32(finite, out)
    assert out.tobytes() == finite.astype(np.float32).tobytes()


def test_a_segment_is_a_numpy_file(tmp_path: Path) -> None:
    """Any tool reads it, and its rows come back bit for bit."""
    parts = [np.random.default_rng(n).normal(size=(n, 8)).astype(np.float16) for n in (3, 1, 5)]
    path = tmp_path / "a.f16.npy"
    assert write_segment(path, parts, 8) == 9
    np.testing.assert_array_equal(np.load(path), np.concatenate(parts))
    np.testing.assert_array_equal(open_segment(path, 9, 8), np.concatenate(parts))


@pytest.mark.parametrize("content", [b"", b"not a segment", b"\x93NUMPY\x01\x00"])
def test_what_is_no_segment_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, foreign, torn, or of another shape."""
    path = tmp_path / "a.f16.npy"
    path.write_bytes(content)
    with pytest.raises(OverflightError, match="check --repair"):
        open_segment(path, 9, 8)
    write_segment(path, [np.zeros((2, 8), np.float16)], 8)
    with pytest.raises(OverflightError, match="expected float16"):
        open_segment(path, 9, 8)
