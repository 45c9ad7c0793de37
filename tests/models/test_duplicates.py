"""Images that look alike are found; images that do not are kept."""

from __future__ import annotations

import numpy as np

from overflight.models.duplicates import difference_hash, match


def make_frame(seed: int) -> np.ndarray:
    """Return a smooth random uint8 image `[150, 150, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 255, (10, 10, 3), dtype=np.uint8)
    return coarse.repeat(15, 0).repeat(15, 1)


def test_a_brighter_copy_matches() -> None:
    """The hash looks at differences, so light does not matter."""
    frame = make_frame(0)
    copy = (frame * 0.8 + 20).astype(np.uint8)
    hashes = [difference_hash(image)[None] for image in (frame, copy)]
    assert match(hashes[0], hashes[1], distance=2) != []


def test_another_image_does_not_match() -> None:
    """Two unrelated images differ in many of 64 bits."""
    hashes = [difference_hash(make_frame(seed))[None] for seed in (1, 2)]
    assert match(hashes[0], hashes[1], distance=2) == []


def test_the_distance_is_the_number_of_differing_bits() -> None:
    """Pairs come with row numbers and their distance."""
    left = np.zeros((2, 64), bool)
    right = np.zeros((3, 64), bool)
    right[1, :2] = True
    right[2, :9] = True
    assert match(left, right, 2) == [(0, 0, 0), (0, 1, 2), (1, 0, 0), (1, 1, 2)]
