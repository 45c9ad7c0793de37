"""Sources: every picture in order, and one line about whatever is none.

Covers: runtime/sources/snapshots.py,
runtime/sources/decoder.py, runtime/sources/image.py, runtime/sources/recording.py, runtime/sources/source.py,
runtime/sources/stills.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import OverflightError, SourceError, UsageError
from overflight.runtime.redact import redact
from overflight.runtime.sources import open_source
from overflight.runtime.sources.image import read_image
from overflight.runtime.sources.recording import VideoFile
from overflight.runtime.sources.stills import Stills, folder_of

cv2 = pytest.importorskip("cv2")


def picture(path: Path, height: int = 24, width: int = 32) -> Path:
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def movie(path: Path, frames: int, fourcc: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), 25, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), number * 255 // frames, np.uint8))
    writer.release()
    return path


def test_a_folder_is_read_as_people_count(tmp_path: Path) -> None:
    """IMG_9 comes before IMG_10; what is no picture is passed over, hidden files too."""
    for name in ["IMG_10.png", "IMG_9.png", ".hidden.png", "img_1.JPG"]:
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    source = open_source(str(tmp_path))
    assert source.count == 3
    assert [frame.name for frame in source.frames()] == ["img_1.JPG", "IMG_9.png", "IMG_10.png"]


def test_a_pattern_names_its_files(tmp_path: Path) -> None:
    """A quoted pattern is a source."""
    for name in ["a1.png", "a2.png", "b1.png"]:
        picture(tmp_path / name)
    assert [frame.name for frame in open_source(f"{tmp_path}/a*.png").frames()] == ["a1.png", "a2.png"]


def test_a_card_of_several_folders_is_read_in_their_order(tmp_path: Path) -> None:
    """Cameras count from 1 again in every folder, so the names keep the folder's."""
    for name in ["100MEDIA/DJI_0002.JPG", "100MEDIA/DJI_0010.JPG", "101MEDIA/DJI_0001.JPG", "101MEDIA/DJI_0002.JPG"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name)
    expected = ["100MEDIA/DJI_0002.JPG", "100MEDIA/DJI_0010.JPG", "101MEDIA/DJI_0001.JPG", "101MEDIA/DJI_0002.JPG"]
    for pattern in ("*/*.JPG", "**/*.JPG"):
        source = open_source(f"{tmp_path}/{pattern}")
        assert [frame.name for frame in source.frames()] == expected
    assert folder_of(f"{tmp_path}/*/*.JPG") == tmp_path


def test_pictures_of_subfolders_are_named(tmp_path: Path) -> None:
    """A folder's own pictures are read; more below is a warning, an error where there are no others."""
    (tmp_path / "100MEDIA").mkdir()
    picture(tmp_path / "100MEDIA" / "DJI_0001.JPG")
    with pytest.raises(UsageError, match=r"no picture in this folder; for those run '.*/\*\*/\*\.JPG'"):
        open_source(str(tmp_path))
    picture(tmp_path / "one.png")
    source = open_source(str(tmp_path))
    assert isinstance(source, Stills)
    assert [frame.name for frame in source.frames()] == ["one.png"]
    assert "pictures of its subfolders are not read" in (source.left_out or "")


def test_an_empty_folder_is_used_wrongly(tmp_path: Path) -> None:
    """The message says which files were expected."""
    with pytest.raises(UsageError, match=r"no picture in this folder; expected files ending in .*\.jpg"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "where",
    [
        "nothing.mp4",
        "ftp://x/y",
        "test://?colour=red",
        "test://?size=0x0",
        "v4l2:///dev/null",
        "x*.jpg",
        "~nobody-at-all",
    ],
)
def test_a_source_that_names_nothing_is_used_wrongly(where: str) -> None:
    """The grammar is in the message."""
    with pytest.raises(UsageError, match="expected"):
        open_source(where)


@given(st.text(max_size=40))
def test_no_text_crashes_the_grammar(where: str) -> None:
    """A source is opened or refused in our own words."""
    if "\0" in where:
        return
    try:
        open_source(where).close()
    except OverflightError as error:
        assert "\n" not in str(error).replace(where, "")


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("rtsp://user:pass@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://us:er:p@ss@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://10.0.0.1/main", "rtsp://10.0.0.1/main"),
        ("flight.mp4", "flight.mp4"),
    ],
)
def test_credentials_are_never_shown(where: str, shown: str) -> None:
    """A log may be sent to anyone."""
    assert redact(where) == shown
    if where.startswith("rtsp"):
        assert open_source(where).name == shown


def test_a_text_file_named_jpg_is_refused(tmp_path: Path) -> None:
    """The suffix proves nothing."""
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(SourceError, match="not a picture"):
        read_image(path)


def test_an_empty_picture_is_refused(tmp_path: Path) -> None:
    """0 bytes are named as such."""
    (tmp_path / "empty.png").touch()
    with pytest.raises(SourceError, match="an empty file"):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    """The decoder would fill the missing half with grey and say nothing."""
    path = picture(tmp_path / f"cut.{suffix}", 200, 300)
    raw = path.read_bytes()
    read_image(path)
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(SourceError, match=r"cut off|not a picture"):
            read_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """20,000 x 20,000 px would take 1.2 GB; only the header is read."""
    path = tmp_path / "bomb.png"
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    path.write_bytes(header + b"\x00" * 64)
    with pytest.raises(SourceError, match="20000 x 20000 px is 400 megapixels"):
        read_image(path)


class _Flushes:
    """A decoder that counts how often it is flushed, which waits for its threads."""

    def __init__(self, context: Any) -> None:
        self._context, self.count = context, 0

    def flush_buffers(self) -> None:
        self.count += 1
        self._context.flush_buffers()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@pytest.mark.parametrize("how", ["read to its end", "left early", "never read"])
def test_a_decoder_is_freed_only_when_its_threads_rest(how: str, tmp_path: Path) -> None:
    """A thread that works on a damaged picture then needs a lock of Python's, and both waited without end."""
    video = VideoFile(movie(tmp_path / "a.mp4", 12))
    flushes = _Flushes(video._context)
    if how != "never read":
        frames = video.frames()
        next(frames)
        video._context = flushes
        if how == "read to its end":
            assert len(list(frames)) == 11
            assert flushes.count == 1
        frames.close()  # type: ignore[attr-defined]
        assert flushes.count == 1
    video._context = flushes
    video.close()
    assert flushes.count == (1 if how == "never read" else 2)


def test_a_recording_gives_every_frame(tmp_path: Path) -> None:
    """Numbers and media times count up."""
    frames = list(VideoFile(movie(tmp_path / "a.mp4", 30)).frames())
    assert [frame.number for frame in frames] == list(range(30))
    assert frames[25].media_ns == pytest.approx(1e9, rel=0.05)


def test_a_cut_recording_keeps_its_frames_and_says_so(tmp_path: Path) -> None:
    """What can be decoded is yielded before the error."""
    path = movie(tmp_path / "a.avi", 200, "MJPG")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    seen = 0
    with pytest.raises(SourceError, match=r"ended after \d+ pictures, the recording is cut off"):
        for _ in VideoFile(path).frames():
            seen += 1
    assert 50 < seen < 150


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    """0 bytes and text alike."""
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"empty file|cannot be opened as a video"):
        VideoFile(path)


def test_stills_in_many_sizes_are_one_source(tmp_path: Path) -> None:
    """A folder may mix cameras."""
    paths = [picture(tmp_path / f"{side}.png", side, side) for side in (8, 16, 32)]
    assert [len(frame.pixels) for frame in Stills("x", paths).frames()] == [8, 16, 32]
