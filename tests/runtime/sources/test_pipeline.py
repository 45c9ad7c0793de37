"""GStreamer as a child: pictures of any size, one line about what failed, and nothing left behind.

Covers: runtime/sources/camera.py.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.runtime.sources import open_source, pipeline
from overflight.runtime.sources.pipeline import Pipeline, gstreamer, network

pytest.importorskip("cv2")
needs_gstreamer = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("gst-launch-1.0", "gst-inspect-1.0"))
    or bool(os.system("gst-inspect-1.0 --exists y4menc")),
    reason="needs gstreamer1.0-tools and gstreamer1.0-plugins-good",
)
LIVE = "videotestsrc is-live=true pattern=red"


def children() -> set[int]:
    """Return the processes whose parent is this one, zombies too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


@needs_gstreamer
@pytest.mark.parametrize(("width", "height"), [(64, 48), (641, 121), (322, 242), (854, 480)])
def test_pictures_of_any_size_arrive_whole(width: int, height: int) -> None:
    """Padding of odd rows and planes is taken off; red stays red in every corner."""
    source = open_source(f"gst://{LIVE} ! video/x-raw,width={width},height={height},framerate=50/1")
    before = children()
    frames = list(itertools.islice(source.frames(), 3))
    source.close()
    assert [frame.number for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert frame.pixels.shape == (height, width, 3)
        red, green, blue = frame.pixels.reshape(-1, 3).T
        assert blue.max() < 8
        assert green.max() < 8
        assert red.min() > 240
    assert children() <= before


@needs_gstreamer
def test_a_pipeline_that_cannot_run_says_why_in_one_line() -> None:
    """The first thing GStreamer complained about, without its addresses, and without credentials."""
    with pytest.raises(SourceError, match='no element "nosuch"'):
        next(Pipeline("nosuch", "gst://nosuch").frames())
    with pytest.raises(SourceError, match="Cannot identify device") as caught:
        next(Pipeline("v4l2src device=/dev/video99", "x").frames())
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="the pipeline ended"):
        list(Pipeline("videotestsrc num-buffers=3", "x").frames())


@needs_gstreamer
def test_a_silent_pipeline_is_killed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process cannot end politely: after the read timeout it is gone, and no zombie stays."""
    monkeypatch.setattr("overflight.runtime.sources.pipeline.READ_S", 0.5)
    before = children()
    source = Pipeline(f"{LIVE} ! video/x-raw,width=64,height=48", "x")
    frames = source.frames()
    next(frames)
    (child,) = children() - before
    os.killpg(child, signal.SIGSTOP)
    with pytest.raises(SourceError, match=r"silent for 0\.5 s"):
        for _ in frames:
            pass
    assert children() <= before


@needs_gstreamer
def test_no_picture_is_made_of_two_sizes() -> None:
    """A camera that changes its size ends the pipeline before one byte of the new size is taken for a pixel."""
    size = "video/x-raw,format=I420,width={},height={}"
    first = f"videotestsrc num-buffers=3 pattern=red ! {size.format(320, 240)} ! c."
    second = f"videotestsrc num-buffers=30 pattern=blue ! {size.format(160, 120)} ! c."
    seen = []
    with pytest.raises(SourceError, match="changed their size from 320 x 240"):
        for frame in Pipeline(f"concat name=c {first} {second} c.", "x").frames():
            seen.append(frame)  # noqa: PERF402 - what came before the failure counts
    assert seen
    assert all(frame.pixels[:, :, 0].min() > 240 for frame in seen)


@needs_gstreamer
def test_a_pipeline_that_gives_no_pictures_is_refused() -> None:
    """Compressed video cannot be converted by the tail that is appended."""
    with pytest.raises(SourceError):
        next(Pipeline("audiotestsrc", "x").frames())


def test_gst_launch_missing_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 and the apt line."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingError, match="sudo apt install gstreamer1"):
        open_source("csi://0")


def test_a_board_in_a_container_converts_from_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release file is not there; a decoder's pictures in device memory would be refused by videoconvert."""
    monkeypatch.setattr(pipeline, "on_device", lambda: True)
    assert network("rtsp://camera/live").endswith("decodebin ! nvvidconv ! video/x-raw,format=I420")
    monkeypatch.setattr(pipeline, "on_device", lambda: False)
    assert network("rtsp://camera/live").endswith("decodebin")


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        (
            "csi://1?size=1920x1080&fps=60",
            ["sensor-id=1", "(memory:NVMM)", "width=1920", "framerate=60/1", "nvvidconv"],
        ),
        ("rtp://@:5004", ["udpsrc address=0.0.0.0 port=5004", "encoding-name=H264", "rtph264depay"]),
        ("rtp://239.1.1.1:5004?codec=h265", ["address=239.1.1.1", "encoding-name=H265"]),
        ("gst://a ! b", ["a ! b"]),
    ],
)
def test_short_names_stand_for_pipelines(where: str, parts: list[str]) -> None:
    """As jetson-utils users know them."""
    for part in parts:
        assert part in gstreamer(where)


@pytest.mark.parametrize(
    "where",
    [
        "csi://front",
        "csi://0?colour=red",
        "csi://0?size=big",
        "rtp://@",
        "rtp://@:5004?codec=vp9",
        "gst://",
        "gst://a ! 'b",
        "gst://a ! autovideosink",
        "gst://! a",
    ],
)
def test_a_pipeline_written_wrongly_is_refused(where: str) -> None:
    """In one line, before anything is started."""
    if shutil.which("gst-launch-1.0") is None and where.startswith("gst://a"):
        pytest.skip("needs gstreamer1.0-tools")
    with pytest.raises(UsageError, match=r"expected|leave the sink out"):
        open_source(where)


@needs_gstreamer
def test_a_decoders_padding_is_no_picture(tmp_path: Path) -> None:
    """A decoder that pads its pictures (avdec_h264 does) gives the same picture as one that does not."""
    if subprocess.run(["gst-inspect-1.0", "avdec_h264", "x264enc"], capture_output=True, check=False).returncode:
        pytest.skip("needs gstreamer1.0-libav and gstreamer1.0-plugins-ugly")
    size = "video/x-raw,format=I420,width=1280,height=720,framerate=25/1"
    coded = f"videotestsrc pattern=red is-live=true ! {size} ! x264enc tune=zerolatency ! h264parse ! avdec_h264"
    source = Pipeline(coded, "x")
    (frame,) = itertools.islice(source.frames(), 1)
    source.close()
    assert frame.pixels.shape == (720, 1280, 3)
    assert frame.pixels[:, :, 0].min() > 240
    assert frame.pixels[:, :, 1:].max() < 12


@needs_gstreamer
def test_a_recording_gives_every_picture_at_its_time() -> None:
    """Where PyAV is missing, as on a board, a file is read without dropping and ends without an error."""
    frames = list(
        Pipeline(
            "videotestsrc num-buffers=40 ! video/x-raw,width=64,height=48,framerate=20/1", "x", live=False
        ).frames()
    )
    assert [frame.number for frame in frames] == list(range(40))
    assert frames[20].media_ns == 1_000_000_000
    assert frames[20].captured_utc_ns is None


def test_a_board_s_camera_daemon_that_hangs_is_named() -> None:
    """What nvarguscamerasrc writes before it ends (dusty-nv/jetson-inference#1397); a critical line follows."""
    said = """Error generated. /dvs/git/dirty/git-master_linux/multimedia/gstnvarguscamerasrc.cpp, execute:656 {}

(gst-launch-1.0:32103): GStreamer-CRITICAL **: gst_mini_object_set_qdata: assertion 'object != NULL' failed
"""
    fix = "Failed to create CaptureSession: sudo systemctl restart nvargus-daemon"
    assert pipeline._reason(said.format("Failed to create CaptureSession")) == fix
    assert pipeline._reason(said.format("No cameras available")) == "execute:656 No cameras available"
    assert pipeline._reason(
        "ERROR: from element /GstPipeline:p/GstV4l2Src:s: Device is busy.\nAdditional debug info:"
    ) == ("Device is busy")
    assert pipeline._reason("") == ""
