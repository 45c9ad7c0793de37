"""Streams of the network: their pictures' time, senders that are waited for, and single pictures over HTTP."""

from __future__ import annotations

import functools
import http.server
import itertools
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.sources import open_source, source
from overflight.runtime.sources.capture_clock import CaptureClock
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.pipeline import Pipeline
from overflight.runtime.sources.snapshots import Snapshots

cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
SECOND = 1_000_000_000


@given(st.lists(st.integers(0, SECOND // 2), min_size=1, max_size=50))
def test_the_fastest_arrival_dates_the_others(delays: list[int]) -> None:
    """A picture is never dated after its arrival, and once the fastest has come each is as old as it is."""
    clock = CaptureClock()
    for number, delay in enumerate(delays):
        stamp = number * SECOND // 25
        captured = clock.captured_ns(stamp, 7 * SECOND + stamp + delay)
        assert captured == 7 * SECOND + stamp + min(delays[: number + 1])


def test_a_link_that_lags_makes_pictures_old() -> None:
    """After a pause of seven seconds the backlog is seven seconds old, and not new."""
    clock = CaptureClock()
    assert clock.captured_ns(0, 100) == 100
    assert clock.captured_ns(SECOND, 8 * SECOND + 100) == SECOND + 100


def test_a_sender_that_starts_again_is_new() -> None:
    """Its time stamps go back, and its pictures are not from the past."""
    clock = CaptureClock()
    clock.captured_ns(90 * SECOND, 100 * SECOND)
    assert clock.captured_ns(0, 101 * SECOND) == 101 * SECOND


@pytest.mark.parametrize("away_s", [-9_800, 37_600])
def test_a_stamp_from_another_time_dates_no_other_picture(away_s: int) -> None:
    """Recorders send single pictures stamped hours away (mediamtx #6255); those are dated by their arrival."""
    clock = CaptureClock()
    for number in range(50):
        stamp = number * SECOND // 25
        arrived = 50_000 * SECOND + stamp + number % 3 * SECOND // 100
        stray = number in {10, 30}
        captured = clock.captured_ns(stamp + stray * away_s * SECOND, arrived)
        assert captured == (arrived if stray else 50_000 * SECOND + stamp)
    assert clock.captured_ns(away_s * SECOND, 60_000 * SECOND) == 60_000 * SECOND


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def push(port: int, key: str, seconds: float) -> subprocess.Popen[bytes]:
    """Send as a drone's controller does, as soon as somebody listens."""
    picture = f"testsrc2=size=160x120:rate=25:duration={seconds}"
    command = f"ffmpeg -loglevel quiet -nostdin -re -f lavfi -i {picture} -c:v libx264 -g 5 -f flv "
    script = f"for i in 1 2 3 4 5 6 7 8; do {command} rtmp://127.0.0.1:{port}/live/{key} && break; sleep 0.3; done"
    return subprocess.Popen(["sh", "-c", script])


@needs_ffmpeg
@pytest.mark.slow
def test_a_sender_may_come_go_and_come_again() -> None:
    """RTMP is waited for; a wrong key is refused and counted."""
    port = free_port()
    where = f"rtmp://127.0.0.1:{port}/live/one?listen"
    for keys in (["one"], ["two", "one"]):
        senders: list[subprocess.Popen[bytes]] = []

        def send(keys: list[str] = keys, senders: list[subprocess.Popen[bytes]] = senders) -> None:
            for key in keys:
                senders.append(push(port, key, 2))
                senders[-1].wait(30)

        thread = threading.Thread(target=send)
        opened = open_source(where)
        assert isinstance(opened, LiveVideo)
        assert opened.listens
        thread.start()
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="stopped after"):
            frames.extend(opened.frames())
        thread.join(60)
        assert opened.take_dropped()["wrong-key"] == (1 if "two" in keys else 0)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_camera_of_single_pictures_is_asked_again(web: tuple[str, Path]) -> None:
    """Each picture is a frame; a damaged one ends it in one line."""
    address, folder = web
    cv2.imwrite(str(folder / "now.jpg"), np.full((24, 32, 3), (0, 0, 255), np.uint8))
    camera = open_source(f"{address}/now.jpg#every=0.01")
    assert isinstance(camera, Snapshots)
    frames = list(itertools.islice(camera.frames(), 3))
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert frames[0].pixels[:, :, 2].min() > 240
    (folder / "now.jpg").write_bytes((folder / "now.jpg").read_bytes()[:-40])
    with pytest.raises(SourceError, match="cut off"):
        next(iter(open_source(f"{address}/now.jpg").frames()))
    with pytest.raises(SourceError, match="nothing under this path"):
        next(iter(open_source(f"{address}/gone.jpg").frames()))
    with pytest.raises(UsageError, match="expected http"):
        open_source(f"{address}/now.jpg#every=soon")


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="needs gstreamer1.0-tools")
def test_without_pyav_gstreamer_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a board: recordings in full, streams as they come; and SRT always."""
    assert isinstance(open_source("srt://:9000?mode=listener"), Pipeline)
    monkeypatch.setattr(source, "has_pyav", lambda: False)
    (tmp_path / "film.mp4").write_bytes(b"x")
    film = open_source(str(tmp_path / "film.mp4"))
    assert isinstance(film, Pipeline)
    assert not film.live
    for where in ("rtsp://10.0.0.1/main", "udp://@:5600"):
        assert isinstance(open_source(where), Pipeline)
