"""Network cameras through PyAV: nobody there, somebody mute, a changed picture size: never a hang.

Covers: runtime/sources/capture_clock.py, runtime/sources/network.py.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.redact import redact
from overflight.runtime.sources import network, open_source
from overflight.runtime.sources.network import LiveVideo

pytest.importorskip("cv2")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "OPEN_S", 2.5)
    monkeypatch.setattr(network, "READ_S", 1.0)


@pytest.fixture
def mute_server() -> Iterator[int]:
    """Return the port of a server that accepts and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted.append(server.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    yield int(server.getsockname()[1])
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    for connection in accepted:
        connection.close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def failure(source: str) -> tuple[str, float]:
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        for _ in open_source(source).frames():
            pass
    return str(caught.value), time.monotonic() - began


def test_a_server_that_never_answers_is_given_up(mute_server: int) -> None:
    """The open timeout holds for RTSP, and the message holds no password."""
    message, seconds = failure(f"rtsp://pilot:secret@127.0.0.1:{mute_server}/main")
    assert seconds < 20  # FFmpeg's own timeout is 30 s
    assert "no answer in" in message
    assert "secret" not in message


def test_a_dead_udp_port_is_given_up() -> None:
    """The open timeout holds for UDP."""
    message, seconds = failure(f"udp://@127.0.0.1:{free_port()}")
    assert seconds < 20  # FFmpeg's own timeout is 30 s
    assert "cannot be opened" in message


def sender(port: int, seconds: float, size: str) -> subprocess.Popen[bytes]:
    picture = f"testsrc2=size={size}:rate=25"
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    return subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-re", "-f", "lavfi", "-i", picture, "-t", str(seconds), "-c:v", "mpeg2video",
         "-g", "5", "-b:v", "2M", "-f", "mpegts", target],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@needs_ffmpeg
def test_a_stream_that_dies_ends_in_time() -> None:
    """The read timeout holds for UDP: frames arrive, then nothing, then one line."""
    port = free_port()
    process = sender(port, 6, "320x240")
    try:
        message, _ = failure(f"udp://@127.0.0.1:{port}")
    finally:
        process.wait(20)
    assert "stopped after" in message
    assert int(message.split("stopped after ")[1].split()[0]) > 5


@needs_ffmpeg
def test_a_changed_picture_size_is_followed(tmp_path: Path) -> None:
    """Two sizes in one transport stream, as when a link gets thin: every frame comes."""
    parts = []
    for size in ("320x240", "160x120"):
        path = tmp_path / f"{size}.ts"
        subprocess.run(
            ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25", "-t", "1",
             "-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", str(path)],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        parts.append(path.read_bytes())
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(parts))
    shapes = []
    with pytest.raises(SourceError):
        for frame in LiveVideo(str(both), "both").frames():
            shapes.append(frame.pixels.shape[:2])  # noqa: PERF401 - what came before the end counts
    assert len(shapes) > 45
    assert set(shapes) <= {(240, 320), (120, 160)}


def test_an_unplugged_camera_is_looked_up_again() -> None:
    """By its name under /dev/v4l, at each opening."""
    message, _ = failure("v4l2:///dev/v4l/by-id/usb-nobody-index0")
    assert "no such device" in message


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        (
            "gst://rtspsrc location=rtsp://a:b@10.0.0.1/x ! decodebin",
            "gst://rtspsrc location=rtsp://***@10.0.0.1/x ! decodebin",
        ),
        (
            'gst://rtspsrc user-id=joe user-pw="my word" ! decodebin',
            "gst://rtspsrc user-id=*** user-pw=*** ! decodebin",
        ),
        ("rtsp://10.0.0.1/x?user=admin&password=1234", "rtsp://10.0.0.1/x?user=***&password=***"),
        ("csi://0?size=1280x720", "csi://0?size=1280x720"),
    ],
)
def test_credentials_are_found_wherever_they_stand(where: str, shown: str) -> None:
    """In a pipeline's properties and in a query too."""
    assert redact(where) == shown


def test_a_picture_larger_than_a_transport_packet_is_whole(tmp_path: Path) -> None:
    """FFmpeg cuts it every 200 KiB, as pictures of 4K are large: decoded in parts it would be damage."""
    av = pytest.importorskip("av")
    path = tmp_path / "large.ts"
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format="mpegts") as made:
        stream = made.add_stream("libx264", rate=10, options={"preset": "ultrafast", "tune": "zerolatency", "qp": "10"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(4):
            pixels = random.integers(0, 256, (1080, 1280), np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, "yuv420p")
            picture.pts = number
            for packet in stream.encode(picture):
                assert packet.size > 2 * 200 * 1024
                made.mux(packet)
        made.mux(stream.encode(None))
    source, numbers = LiveVideo(str(path), "large"), []
    with pytest.raises(SourceError, match="ended"):
        for frame in source.frames():
            numbers.append(frame.number)  # noqa: PERF401 - what came before the end counts
    assert numbers == [0, 1, 2, 3]
    assert not source.take_dropped()
