"""RTSP against a real server, whose pictures carry the time at which they were made."""

from __future__ import annotations

import itertools
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.planes import Planes
from overflight.runtime.sources import open_source
from overflight.runtime.sources.rtsp.rtp import RtpPacket
from overflight.runtime.sources.rtsp.video import RtspVideo

SERVER = Path(__file__).with_name("server.py")
PYTHON = "/usr/bin/python3"  # GStreamer's Python binding is the system's
CELL, BITS = 16, 40
needs_server = pytest.mark.skipif(
    not Path(PYTHON).exists()
    or subprocess.run(
        [PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], check=False, capture_output=True
    ).returncode
    != 0,
    reason="needs python3-gi and gir1.2-gst-rtsp-server-1.0",
)
pytestmark = [needs_server, pytest.mark.slow]
Serve = Callable[..., tuple[str, "subprocess.Popen[str]"]]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(free_port: int) -> Iterator[Serve]:
    processes = []

    def start(*given: object) -> tuple[str, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [PYTHON, str(SERVER), str(free_port), *map(str, given)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return f"rtsp://127.0.0.1:{free_port}/live", process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def luma(frame: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    assert isinstance(frame.picture, Planes)
    return np.asarray(frame.picture.luma, np.uint8)


def made_ns(frame: Frame) -> int:
    """Read the time that is drawn into a picture."""
    squares = [luma(frame)[4:12, bit * CELL + 4 : bit * CELL + 12].mean() > 125 for bit in range(BITS)]
    return sum(1 << bit for bit, set_ in enumerate(squares) if set_) * 1000


def read(where: str, count: int) -> list[tuple[Frame, int]]:
    """Read frames with the time at which each came out."""
    source = open_source(where)
    try:
        return [(frame, time.monotonic_ns()) for frame in itertools.islice(source.frames(), count)]
    finally:
        source.close()


@pytest.mark.parametrize(
    ("fps", "codec", "transport"), [(5, "h264", "tcp"), (30, "h264", "udp"), (10, "h265", "tcp"), (10, "jpeg", "tcp")]
)
def test_the_age_is_the_pictures_own(serve: Serve, fps: int, codec: str, transport: str) -> None:
    """No picture is held until the next, and its stated time is the time drawn into it.

    The median is judged, within one interval of pictures: machines that run tests are busy.
    """
    where, _ = serve(fps, 1, 0, codec)
    seen = read(f"{where}#transport={transport}", 4 * fps)[2 * fps :]
    errors = [abs(frame.captured_ns - made_ns(frame)) / 1e9 for frame, _ in seen]
    holds = [(came_ns - made_ns(frame)) / 1e9 for frame, came_ns in seen]
    assert np.median(errors) < 1 / fps
    assert np.median(holds) < 1 / fps or codec == "h265"  # its encoder may hold pictures for seconds


def test_a_keyframe_every_ten_seconds_is_enough(serve: Serve) -> None:
    """Who comes late waits for the next one and is not thrown out meanwhile."""
    where, _ = serve(10, 10, 0, "h264")
    first = iter(open_source(where).frames())
    next(first)  # the server's pictures are shared from here on
    time.sleep(1)
    assert len(read(where, 5)) == 5


def test_no_broken_picture_passes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet in fifty is lost: pictures are fewer, and each is whole."""
    parse, chance = RtpPacket.parse, random.Random(1)
    monkeypatch.setattr(RtpPacket, "parse", lambda raw, at: None if chance.random() < 0.02 else parse(raw, at))
    where, _ = serve(30, 0.5, 0, "h264")
    source = open_source(f"{where}#transport=udp")
    assert isinstance(source, RtspVideo)
    frames = list(itertools.islice(source.frames(), 60))
    dropped = source.take_dropped()
    source.close()
    assert dropped["damaged"] > 10
    assert dropped["packet-lost"] > 10
    for frame in frames:
        rows = luma(frame)[CELL + 4 :].astype(int)  # in the scene every row is the same
        assert (np.abs(rows - np.median(rows, axis=0)) > 24).mean() < 0.02


def test_a_wrong_password_is_not_a_wrong_path(serve: Serve) -> None:
    """Digest, as GStreamer's own server asks for it."""
    where, _ = serve(10, 1, 0, "h264", "pilot", "s3cret")
    address = where.removeprefix("rtsp://")
    assert len(read(f"rtsp://pilot:s3cret@{address}", 2)) == 2
    with pytest.raises(SourceError, match="wrong user name or password"):
        read(f"rtsp://pilot:wrong@{address}", 1)
    with pytest.raises(SourceError, match="asks for a user name"):
        read(where, 1)
    with pytest.raises(SourceError, match="nothing under this path"):
        read(f"rtsp://pilot:s3cret@{address}x", 1)
