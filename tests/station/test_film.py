"""The demo's film: small, whole, openly licensed, and made again by its script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from overflight.runtime.errors import SourceError, UsageError
from overflight.station.film import FPS, HEIGHT, SHOTS, WIDTH, Shot, View, film, look, path

DEMO = Path(__file__).parents[2] / "station" / "demo"
FRAMES = 625


def test_shipped_film_is_small_and_whole() -> None:
    """The film is below 4 MB, and OpenCV decodes every frame of its 25 seconds."""
    cv2 = pytest.importorskip("cv2")
    shipped = DEMO / "flight.mp4"
    assert shipped.stat().st_size <= 4_000_000
    capture = cv2.VideoCapture(str(shipped))
    frames = 0
    while capture.grab():
        frames += 1
    assert frames == FRAMES
    assert capture.get(cv2.CAP_PROP_FPS) == FPS
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (WIDTH, HEIGHT)


def test_every_picture_is_attributed() -> None:
    """Each picture that was filmed is named in ATTRIBUTION.md, with its licence."""
    said = (DEMO / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for shot in SHOTS:
        assert shot.picture in said
    for words in ("deepforest", "2.1.0", "NEON", "MIT License", "Copyright (c) 2019, Ben Weinstein"):
        assert words in said


def test_camera_path_is_smooth() -> None:
    """From frame to frame the camera moves by a few pixels, zooms by less than 1 % and turns by less than 1 degree."""
    for shot in SHOTS:
        views = np.array([(view.x, view.y, view.width, view.heading_deg) for view in path(shot)])
        x, y, width, heading = np.abs(np.diff(views, axis=0)).max(axis=0)
        assert max(x, y) < 12, shot.picture
        assert width < 0.01 * views[:, 2].min()
        assert heading < 1


def test_straight_view_is_the_picture() -> None:
    """A level view at the film's own scale is the picture itself."""
    pytest.importorskip("cv2")
    picture = np.repeat(np.linspace(0, 255, 1200).astype(np.uint8)[None, :, None], 700, axis=0).repeat(3, axis=2)
    seen = look(picture, View(600 - 0.5, 350 - 0.5, WIDTH))
    assert seen.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(seen.astype(int) - picture[80:620, 120:1080]).max() <= 1


def test_view_beyond_the_picture_is_refused() -> None:
    """No black corner gets into the film."""
    pytest.importorskip("cv2")
    with pytest.raises(UsageError, match="looks beyond"):
        look(np.zeros((700, 1200, 3), np.uint8), View(100, 350, 960, 10))


def test_missing_picture(tmp_path: Path) -> None:
    """A missing picture is named."""
    pytest.importorskip("cv2")
    with pytest.raises(SourceError, match=r"gone\.png"):
        next(film(tmp_path, (Shot("gone.png", 1, (View(0, 0, 1), View(0, 0, 1))),)))


@pytest.mark.data
def test_film_is_made_again(imagery: Path) -> None:
    """The script's first frame is the shipped film's first frame, but for its compression."""
    cv2 = pytest.importorskip("cv2")
    _, shipped = cv2.VideoCapture(str(DEMO / "flight.mp4")).read()
    picture = cv2.imread(str(imagery / "demo_source" / SHOTS[0].picture))
    made = look(picture, path(SHOTS[0])[0])
    assert np.abs(made.astype(int) - shipped).mean() < 9
    other = look(picture, path(SHOTS[0])[100])
    assert np.abs(other.astype(int) - shipped).mean() > 15
