"""Cameras over HTTP: every way of parting pictures that is met, single pictures, and refusals.

The forms come from public reports: go2rtc #545 and #1258, and firmwares of ESP32 cameras.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.sources import open_source
from overflight.runtime.sources.motion_jpeg import HttpVideo

pytest.importorskip("av")
pytest.importorskip("cv2")
pillow = pytest.importorskip("PIL.Image")
COUNT = 6


def picture(level: int) -> bytes:
    out = io.BytesIO()
    pillow.fromarray(np.full((48, 64, 3), level, np.uint8)).save(out, "JPEG")
    return out.getvalue()


PICTURES = [picture(40 + 30 * number) for number in range(COUNT)]


def parted(line: bytes, *, length: bool = True, end: bytes = b"\r\n", kind: bytes = b"image/jpeg") -> bytes:
    body = b""
    for one in PICTURES:
        header = line + end + b"Content-Type: " + kind + end
        body += header + (b"Content-Length: %d" % len(one) + end if length else b"") + end + one + end
    return body


USUAL = "multipart/x-mixed-replace; boundary=frame"
ANSWERS = {
    "usual": (USUAL, parted(b"--frame")),
    "without-first-boundary": (USUAL, parted(b"--frame").partition(b"\r\n")[2]),
    "boundary-twice": (USUAL, parted(b"--frame\r\n--frame")),
    "boundary-as-end": (USUAL, parted(b"--frame--")),
    "another-boundary": (USUAL, parted(b"--other")),
    "no-boundary-named": ("multipart/x-mixed-replace", parted(b"--frame")),
    "without-lengths": (USUAL, parted(b"--frame", length=False)),
    "wrong-lengths": (USUAL, parted(b"--frame").replace(b"Length: ", b"Length: 1")),
    "line-feeds": (USUAL, parted(b"--frame", end=b"\n")),
    "image-jpg": (USUAL, parted(b"--frame", kind=b"image/jpg")),
    "one-behind-the-other": ("image/jpeg", b"".join(PICTURES)),
    "x-motion-jpeg": ("video/x-motion-jpeg", b"".join(PICTURES)),
}


class Camera(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name in {"snapshot", "page"}:
            kind, body = ("image/jpeg", PICTURES[0]) if name == "snapshot" else ("text/html", b"<html>log in</html>")
            self._answer(kind, body, length=True)
        elif name in ANSWERS:
            self._answer(*ANSWERS[name])
        else:
            self.send_error(401 if name == "locked" else 404)

    def _answer(self, kind: str, body: bytes, *, length: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ANSWERS)
def test_every_picture_comes_however_they_are_parted(camera: str, name: str) -> None:
    """All of them, in order, and the end of the stream is named."""
    source, levels = open_source(f"{camera}/{name}"), []
    with pytest.raises(SourceError, match="stopped after 6 frames: the sender ended the stream"):
        for frame in source.frames():
            levels.append(frame.pixels.mean())  # noqa: PERF401 - what came before the end counts
    assert levels == pytest.approx([40 + 30 * number for number in range(COUNT)], abs=1)


def test_a_damaged_picture_is_counted(camera: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is shown."""
    body = parted(b"--frame")
    second = body.index(PICTURES[1])
    monkeypatch.setitem(ANSWERS, "damaged", (USUAL, body[: second + 300] + b"\0" * 300 + body[second + 600 :]))
    source = open_source(f"{camera}/damaged")
    assert isinstance(source, HttpVideo)
    with pytest.raises(SourceError, match="the sender ended"):
        assert len(list(source.frames())) == COUNT
    assert source.take_dropped()["damaged"] >= 1


def test_a_camera_of_single_pictures_needs_no_ending_in_its_address(camera: str) -> None:
    """Its answer says that it is one picture, and it is asked again."""
    frames = list(itertools.islice(open_source(f"{camera}/snapshot").frames(), 2))
    assert [frame.pixels.mean() for frame in frames] == pytest.approx([40, 40], abs=1)
    assert frames[1].captured_ns - frames[0].captured_ns > 5e8


@pytest.mark.parametrize(
    ("path", "said"),
    [("locked", "wrong user name or password"), ("none", "nothing under this path"), ("page", "page: ")],
)
def test_what_is_no_camera_is_named(camera: str, path: str, said: str) -> None:
    """In one line."""
    with pytest.raises(SourceError, match=said):
        next(iter(open_source(f"{camera}/{path}").frames()))
