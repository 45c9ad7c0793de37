"""Every kind of recording: all its pictures, at their times, in their colours, or refused by name."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.planes import Planes
from overflight.runtime.sources.recording import VideoFile

pytest.importorskip("av")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program"),
]
RED = (200, 40, 40)

# The pictures that are shown, and the time of the last one in milliseconds.
WHOLE = {
    **{f"{matrix}-{kind}.mp4": (100, 3960) for matrix in ("bt601", "bt709", "bt2020") for kind in ("limited", "full")},
    **{f"plain.{suffix}": (100, 3960) for suffix in ("mp4", "mkv", "ts", "flv", "mov", "avi", "webm")},
    **{f"siting-{place}.mp4": (100, 3960) for place in ("left", "center", "topleft")},
    **{f"turned-{degrees}.mp4": (100, 3960) for degrees in (90, 180, 270)},
    "plain.mpg": (100, 4000),
    "rgb.avi": (100, 3960),
    "ten-bit.mkv": (100, 3960),
    "ten-bit.webm": (100, 3960),
    "grey.mp4": (100, 3960),
    "timed.h264": (100, 3960),
    "untimed.hevc": (100, None),
    "starts-late.mkv": (100, 3960),
    "trimmed.mp4": (62, 2440),
    "sound-longer.mkv": (100, 3960),
    "variable.mkv": (34, 3960),
    "joined.ts": (198, 7960),  # the two pictures at the border stand between two clocks
    "cover-behind.mp4": (100, 3960),
    "cover-first.mp4": (100, 3960),
    "aspect.mp4": (100, 3960),
}
REFUSED = {
    "cut.mp4": "the recording is cut off",
    "cut.mkv": "the recording is cut off",
    "cut.avi": "the recording is cut off",
    "no-index.mp4": "cannot be opened as a video",
    "sound-only.mp4": "holds no moving picture, only audio",
}
# Of films with noise in twelve pictures: whether all that passes is right. Where not, the coded form cannot show all.
NOISE = {"h264.mkv": False, "h265.mkv": False, "mjpeg.mkv": False, "vp9.mkv": True}
OTHERS = {"lossy.ts", *(f"{state}-{name}" for name in NOISE for state in ("whole", "noise"))}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = Path(__file__).with_name("video") / "make.py"
    spec = importlib.util.spec_from_file_location("make_video", maker)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("video")
    module.make(folder)
    return folder


def read(path: Path) -> tuple[VideoFile, list[Frame]]:
    source = VideoFile(path)
    try:
        return source, list(source.frames())
    finally:
        source.close()


def as_ffmpeg_shows(path: Path) -> NDArray[np.uint8]:
    """The first picture in colour, turned as its display matrix says, by another program."""
    shown = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-nostdin", "-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt",
         "rgb24", "-sws_flags", "accurate_rnd+full_chroma_int+bicubic", "-"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    return np.frombuffer(shown, np.uint8)


def test_every_recording_is_expected(corpus: Path) -> None:
    """What the maker makes and what is judged are the same."""
    assert {path.name for path in corpus.iterdir()} == {*WHOLE, *REFUSED, *OTHERS}


@pytest.mark.parametrize("name", WHOLE)
def test_a_recording_gives_every_picture_at_its_time_and_in_its_colours(corpus: Path, name: str) -> None:
    """The count, the last time, the red half, and the same picture that ffmpeg shows."""
    count, last_ms = WHOLE[name]
    source, frames = read(corpus / name)
    assert len(frames) == count
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    times = [frame.media_ns for frame in frames]
    if last_ms is None:
        assert set(times) == {None}
        assert "no time" in source.notes[0]
    else:
        assert times[0] == 0
        assert times[-1] == pytest.approx(last_ms * 1e6, abs=1e6)
        assert times == sorted(time for time in times if time is not None)
    pixels = frames[0].pixels
    shown = as_ffmpeg_shows(corpus / name).reshape(pixels.shape)
    # Untagged films have the matrix of their size; ffmpeg's conversion is coarse at the edges of chroma.
    assert np.abs(pixels.astype(int) - shown).mean() < 6
    if name != "grey.mp4" and not name.startswith("turned"):
        assert np.abs(pixels[4:-4, 4:24].mean((0, 1)) - RED).max() < 8


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_whole_is_refused_by_name(corpus: Path, name: str) -> None:
    """In one line, after everything that could be decoded."""
    with pytest.raises(SourceError, match=REFUSED[name]) as caught:
        read(corpus / name)
    assert "\n" not in str(caught.value)


def test_pixels_that_are_not_square_are_stated(corpus: Path) -> None:
    """64 x 48 at 64:45 is shown 91 x 48; turned by a quarter, the aspect turns too."""
    assert read(corpus / "aspect.mp4")[1][0].display_size == (91, 48)
    assert read(corpus / "turned-90.mp4")[1][0].display_size == (48, 64)


@pytest.mark.parametrize(("place", "siting"), [("left", (0.0, 0.5)), ("center", (0.5, 0.5)), ("topleft", (0.0, 0.0))])
def test_chroma_lies_where_the_stream_says(corpus: Path, place: str, siting: tuple[float, float]) -> None:
    """Taken from the headers."""
    picture = read(corpus / f"siting-{place}.mp4")[1][0].picture
    assert isinstance(picture, Planes)
    assert picture.siting == siting


# a, b, c, d of the display matrix: shown x = a x + c y, shown y = b x + d y (ISO/IEC 14496-12, 8.3.2).
SHOWN = {
    (1, 0, 0, 1): lambda plane: plane,
    (-1, 0, 0, 1): lambda plane: plane[:, ::-1],
    (1, 0, 0, -1): lambda plane: plane[::-1],
    (-1, 0, 0, -1): lambda plane: plane[::-1, ::-1],
    (0, 1, 1, 0): lambda plane: plane.T,
    (0, 1, -1, 0): lambda plane: plane.T[:, ::-1],
    (0, -1, 1, 0): lambda plane: plane.T[::-1],
    (0, -1, -1, 0): lambda plane: plane.T[::-1, ::-1],
}


@pytest.mark.parametrize("matrix", SHOWN)
def test_a_display_matrix_turns_and_mirrors(corpus: Path, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """All eight, as cameras that hang upside down or look into a mirror write them."""
    stored = next(iter(VideoFile(corpus / "plain.mp4").frames())).picture
    raw = bytearray((corpus / "plain.mp4").read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    across_x, across_y, down_x, down_y = (value << 16 for value in matrix)
    struct.pack_into(">9i", raw, at, across_x, across_y, 0, down_x, down_y, 0, 0, 0, 1 << 30)
    (tmp_path / "shown.mp4").write_bytes(raw)
    shown = next(iter(VideoFile(tmp_path / "shown.mp4").frames())).picture
    assert isinstance(stored, Planes)
    assert isinstance(shown, Planes)
    for before, after in zip((stored.luma, *stored.chroma), (shown.luma, *shown.chroma), strict=True):
        np.testing.assert_array_equal(after, SHOWN[matrix](before))


def test_no_damaged_picture_passes(corpus: Path) -> None:
    """Of a transport stream that lost 2 % of its packets, what passes is what the whole one shows at that time."""
    source, frames = read(corpus / "lossy.ts")
    whole = {frame.media_ns: frame.pixels.astype(int) for frame in read(corpus / "plain.ts")[1]}
    assert source.take_dropped()["damaged"] > 5
    assert len(frames) > 30
    for frame in frames:
        assert frame.media_ns is not None
        assert np.abs(frame.pixels - whole[frame.media_ns]).mean() < 1


@pytest.mark.parametrize("name", NOISE)
def test_damage_without_loss_is_counted(corpus: Path, name: str) -> None:
    """Also where FFmpeg's decoder passes over it unless it is asked not to, or does not look."""
    source, frames = read(corpus / f"noise-{name}")
    whole = {frame.media_ns: frame.pixels.astype(int) for frame in read(corpus / f"whole-{name}")[1]}
    assert len(whole) == 100
    damaged = source.take_dropped()["damaged"]
    assert damaged >= 6
    assert len(frames) + damaged == 100
    assert frames
    if NOISE[name]:
        assert all((frame.pixels == whole[frame.media_ns or 0]).all() for frame in frames)
