"""Measured quality: known blur, haze and exposure are recognised; what has no texture abstains."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from overflight.station.describe.quality import blur_index, measure, quality_fields
from overflight.station.ground import GroundSample

HASHES = ("m", "b", "s")


def scene() -> Any:
    """Return a picture with edges, shadows and colours."""
    random = np.random.default_rng(1)
    pixels = np.full((256, 256, 3), (90, 120, 70), np.uint8)
    for _ in range(120):
        x, y, size = random.integers(0, 240, 3)
        cv2.rectangle(
            pixels, (int(x), int(y)), (int(x + size / 10 + 3), int(y + 12)), random.integers(0, 255, 3).tolist(), -1
        )
    return pixels


def words(pixels: Any, ground: GroundSample | None = None) -> dict[str, str | None]:
    found = measure(pixels, np.ones(pixels.shape[:2], bool))
    return {field.name: field.value for field in quality_fields(found, ground, HASHES)}


def test_known_damage_is_named() -> None:
    clean = scene()
    assert words(clean)["blur"] == "sharp"
    assert words(cv2.GaussianBlur(clean, (0, 0), 3))["blur"] == "blurred"
    assert words(clean)["haze"] == "clear"
    assert words((clean * 0.3 + 0.7 * 220).astype(np.uint8))["haze"] == "dense haze"
    assert words((clean * 0.3).astype(np.uint8))["exposure"] == "dark"
    assert words(np.full((64, 64, 3), 240, np.uint8))["bright smooth area"] == "much"


def test_a_calm_lake_is_not_called_blurred() -> None:
    assert blur_index(np.full((100, 100), 80, np.float32)) is None
    assert words(np.full((100, 100, 3), 80, np.uint8))["blur"] is None


@pytest.mark.parametrize(
    ("gsd_m", "word"), [(0.05, "below 10 cm"), (0.3, "10 to 50 cm"), (10.0, "2 to 30 m"), (90.0, "coarse")]
)
def test_resolution_is_the_ground_sample_distance(gsd_m: float, word: str) -> None:
    assert words(scene(), GroundSample(gsd_m, 0.05, "given"))["resolution"] == word
    assert words(scene())["resolution"] is None
