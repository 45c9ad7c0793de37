"""What a scaler in front of the exact filter costs, through GStreamer's elements on the processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from overflight.bench import hardware_scale

pytestmark = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="GStreamer is not installed")


def test_a_scaler_keeps_the_colours() -> None:
    """Without the colorimetry on both sides GStreamer takes BT.601 below 720 lines, and converts."""
    picture = np.concatenate([np.full(1280 * 800, 120, np.uint8), np.full(640 * 400, 90, np.uint8),
                              np.full(640 * 400, 160, np.uint8)]).tobytes()  # fmt: skip
    same = hardware_scale.scaled(picture, (1280, 800), (1280, 800), hardware_scale.METHODS["bilinear"])
    assert same == picture
    smaller = np.frombuffer(
        hardware_scale.scaled(picture, (1280, 800), (448, 280), hardware_scale.METHODS["lanczos"]), np.uint8
    )
    assert len(smaller) == 448 * 280 * 3 // 2
    luma, chroma = smaller[: 448 * 280], smaller[448 * 280 :].reshape(2, -1)
    assert (set(luma), set(chroma[0]), set(chroma[1])) == ({120}, {90}, {160})
    shown = hardware_scale.planes(smaller.tobytes(), 448, 280)
    assert shown.shape == (280, 448, 3)


def test_a_finer_scaler_costs_less(tmp_path: Path, colour_bundle: object) -> None:
    """Every scaler answers for every picture; on a plain picture none of them changes anything."""
    import cv2

    cv2.imwrite(str(tmp_path / "plain.png"), np.full((240, 320, 3), (30, 120, 200), np.uint8))
    found = hardware_scale.embed_through(colour_bundle, [tmp_path / "plain.png"], 2.0)  # type: ignore[arg-type]
    assert set(found) == {"exact", *hardware_scale.METHODS}
    for answers in found.values():
        np.testing.assert_allclose(answers, found["exact"], atol=0.02)
