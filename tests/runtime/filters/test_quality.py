"""Trust: what a dead camera or a decoder made up is named, and honest pictures pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime.filters.quality import QualityCheck

SCENE = np.random.default_rng(0).integers(30, 200, (64, 64, 3), np.uint8)


def torn() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = SCENE.copy()
    pixels[40:] = pixels[40]
    return pixels


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        (SCENE, None),
        (np.zeros_like(SCENE), "black"),
        (np.full_like(SCENE, 8), "black"),
        (np.full_like(SCENE, 255), "blown-out"),
        (torn(), "torn"),
        (np.full_like(SCENE, 127), None),  # fog, or a calm lake: dull, but it may be true
    ],
)
def test_a_fault_is_named(pixels: NDArray[np.uint8], fault: str | None) -> None:
    """One look at the engine's input is enough."""
    assert QualityCheck(live=True).fault(pixels) == fault


def test_a_flat_lower_edge_is_no_damage_where_the_decoder_reports_it() -> None:
    """A status bar, a deck, a test picture: the decoder of a recording or a stream names what was concealed."""
    assert QualityCheck(live=False, decoder_reports=True).fault(torn()) is None


def test_a_frozen_camera_is_named_and_recovers() -> None:
    """The same bits again are no new look, and often enough they are a fault; the first change ends it."""
    judge = QualityCheck(live=True)
    answers = [judge.fault(SCENE) for _ in range(8)]
    assert answers == [None, *["repeated"] * 4, *["frozen"] * 3]
    moved = SCENE.copy()
    moved[3, 3, 1] ^= 1
    assert judge.fault(moved) is None


def test_a_recording_may_stand_still() -> None:
    """In a file the same picture twice is what the file says."""
    judge = QualityCheck(live=False)
    assert [judge.fault(SCENE) for _ in range(20)] == [None] * 20


@given(st.integers(0, 2**32 - 1), st.integers(5, 80))
def test_noise_of_any_kind_is_trusted(seed: int, contrast: int) -> None:
    """A living sensor is never taken for a dead one."""
    noise = np.random.default_rng(seed).normal(120, contrast, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert QualityCheck(live=True).fault(noise) is None
