"""Varied copies: the same in every run, unlike the frame, and still a picture of the ground."""

from __future__ import annotations

import numpy as np
import pytest

from overflight.calibration.vary import KINDS, vary
from overflight.runtime.evaluation.duplicates import emptiness


@pytest.fixture
def frames() -> np.ndarray:
    """Return frames with large and small structure."""
    y, x = np.mgrid[0:64, 0:64]
    ground = 110 + 50 * np.sin(x / 9) + 40 * np.cos(y / 7)
    return np.repeat(np.stack([ground, 0.8 * ground, 0.6 * ground], axis=2)[None], len(KINDS), axis=0).astype(np.uint8)


def test_every_kind_changes_the_frame_and_keeps_a_picture(frames: np.ndarray) -> None:
    """A copy that shows nothing would widen no range that a flight reaches."""
    copies = vary(frames)
    assert copies.dtype == np.uint8
    assert copies.shape == frames.shape
    for frame, copy in zip(frames, copies, strict=True):
        assert np.abs(copy.astype(int) - frame).mean() > 5
        assert emptiness(copy) is None


def test_the_copies_repeat(frames: np.ndarray) -> None:
    """A calibration that is resumed or repeated reads the same ranges."""
    np.testing.assert_array_equal(vary(frames), vary(frames))


def test_light_moves_the_mean_both_ways(frames: np.ndarray) -> None:
    """Among the copies some are darker and some brighter than the frame."""
    means = vary(frames).mean(axis=(1, 2, 3)) / frames[0].mean()
    assert means.min() < 0.65
    assert means.max() > 1.3
