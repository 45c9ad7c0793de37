"""Make the demo's film: a smooth camera path over aerial mosaics, as a drone would have filmed it.

    python -m overflight.station.film SOURCE station/demo/flight.mp4

``SOURCE`` holds the pictures named in ATTRIBUTION.md. Needs OpenCV and the ffmpeg program; the same pictures make the
same frames.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import MissingError, SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WIDTH, HEIGHT, FPS = 960, 540, 25
FADE_FRAMES = 10
# Slower to encode, smaller, and the same bytes on every machine: x264's answer depends on its number of threads.
_ENCODER = ("-c:v", "libx264", "-preset", "veryslow", "-crf", "31", "-g", "100", "-threads", "2", "-pix_fmt", "yuv420p")


@dataclass(frozen=True)
class View:
    """Where the camera looks: centre ``x``, ``y`` and ``width`` in mosaic pixels, ``heading_deg`` clockwise."""

    x: float
    y: float
    width: float
    heading_deg: float = 0.0


@dataclass(frozen=True)
class Shot:
    """A flight over one mosaic: through ``views`` at equal intervals, ``seconds`` long."""

    picture: str
    seconds: float
    views: tuple[View, ...]


SHOTS = (
    Shot(
        "2019_YELL_2_528000_4978000_image_crop2.png",
        12.4,
        (
            View(300, 640, 950, 92),
            View(340, 900, 1000, 84),
            View(900, 1150, 1250, 45),
            View(1180, 1380, 1700, 15),
            View(1450, 1800, 1500, 4),
            View(1540, 2020, 1400, 0),
        ),
    ),
    Shot(
        "2019_YELL_2_541000_4977000_image_crop.png",
        8.4,
        (
            View(800, 360, 850, 5),
            View(640, 420, 1080, 3),
            View(600, 540, 1100, -3),
            View(600, 640, 1000, -6),
        ),
    ),
    Shot(
        "AWPE Pigeon Lake 2020 DJI_0005.JPG",
        5.0,
        (
            View(529, 560, 1000, -1),
            View(620, 450, 860, 0),
            View(700, 380, 690, 1),
        ),
    ),
)


def make_film(source: Path, out: Path, shots: tuple[Shot, ...] = SHOTS) -> int:
    """Film ``shots`` and encode them as H.264; return the number of frames."""
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}"]
    command += ["-r", str(FPS), "-i", "-", *_ENCODER, "-movflags", "+faststart", "-fflags", "+bitexact", str(out)]
    try:
        encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
    except FileNotFoundError as error:
        raise MissingError("ffmpeg is not installed; install the distribution's package ffmpeg") from error
    assert encoder.stdin is not None
    frames = 0
    with encoder.stdin as pipe:
        for frame in film(source, shots):
            pipe.write(frame.tobytes())
            frames += 1
    if encoder.wait():
        raise SourceError(f"{out}: ffmpeg ended with {encoder.returncode}; its own message stands above")
    return frames


def film(source: Path, shots: tuple[Shot, ...]) -> Iterator[NDArray[np.uint8]]:
    """Yield the film's frames, uint8 BGR ``[540, 960, 3]``; one shot fades into the next."""
    import cv2

    tail: list[NDArray[np.uint8]] = []
    for shot in shots:
        picture = cv2.imread(str(source / shot.picture), cv2.IMREAD_COLOR)
        if picture is None:
            raise SourceError(f"{source / shot.picture}: no picture here; expected the mosaics of ATTRIBUTION.md")
        frames = [look(picture, view) for view in path(shot)]
        for step, (old, new) in enumerate(zip(tail, frames, strict=False), start=1):
            weight = step / (FADE_FRAMES + 1)
            yield cv2.addWeighted(old, 1 - weight, new, weight, 0)
        last = len(frames) if shot is shots[-1] else len(frames) - FADE_FRAMES
        yield from frames[len(tail) : last]
        tail = frames[last:]


def path(shot: Shot) -> list[View]:
    """One view per frame: a Catmull-Rom spline through the shot's views, with the slow sway of a hovering aircraft."""
    keys = np.array([(v.x, v.y, v.width, v.heading_deg) for v in shot.views])
    keys = np.vstack([2 * keys[0] - keys[1], keys, 2 * keys[-1] - keys[-2]])
    views = []
    for number in range(round(shot.seconds * FPS)):
        place = number / (shot.seconds * FPS) * (len(shot.views) - 1)
        index, t = int(place), place % 1
        weights = np.array([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]) / 2
        x, y, width, heading = weights @ keys[index : index + 4]
        now = number / FPS
        sway = (3 * np.sin(1.9 * now), 2.5 * np.sin(2.6 * now + 1), 0.0, 0.35 * np.sin(1.3 * now))
        views.append(View(x + sway[0], y + sway[1], width, heading + sway[3]))
    return views


def look(picture: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Cut ``view`` out of ``picture``: bicubic at twice the size, then area-averaged, so that nothing flickers."""
    import cv2

    fine = (2 * WIDTH, 2 * HEIGHT)
    scale = view.width / fine[0]
    turn = np.deg2rad(view.heading_deg)
    across = scale * np.array([np.cos(turn), np.sin(turn)])
    down = scale * np.array([-np.sin(turn), np.cos(turn)])
    origin = np.array([view.x, view.y]) - across * (fine[0] - 1) / 2 - down * (fine[1] - 1) / 2
    corners = origin + np.array([[0, 0], fine[0] * across, fine[1] * down, fine[0] * across + fine[1] * down])
    if corners.min() < 0 or (corners > (picture.shape[1], picture.shape[0])).any():
        raise UsageError(
            f"{view}: looks beyond the picture of {picture.shape[1]} x {picture.shape[0]} px; move it inside"
        )
    to_picture = np.column_stack([across, down, origin])
    wide = cv2.warpAffine(picture, to_picture, fine, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    small: NDArray[np.uint8] = cv2.resize(wide, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m overflight.station.film SOURCE OUT.mp4")
    print(make_film(Path(sys.argv[1]), Path(sys.argv[2])), "frames")
