"""GStreamer as a child process: a driver that hangs can be killed, and no Python binding has to fit.

The child writes YUV4MPEG2 pictures, each wrapped in a multipart header that tells its length. The size comes from the
picture's own header, and a camera that changes it is noticed before one wrong byte is taken for a pixel.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.redact import redact
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

START_S = 8.0  # a CSI sensor and its daemon take up to five seconds to deliver the first picture
READ_S = 3.0
_QUIT_S = 1.0  # for a polite end: nvarguscamerasrc, killed at once, may leave its daemon locked
_MOST_HEADER = 4096
_TAIL = (
    "! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 ! videoconvert "
    "! video/x-raw,format=I420 ! y4menc ! multipartmux boundary=picture ! fdsink fd=1 sync=false"
)
_CSI = (
    "nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 "
    "! nvvidconv ! video/x-raw,format=I420"
)
_RTP = (
    "udpsrc address={address} port={port} "
    "caps=application/x-rtp,media=video,clock-rate=90000,encoding-name={name},payload={payload} "
    "! rtpjitterbuffer latency=50 drop-on-latency=true ! {depay} ! decodebin"
)
_CODECS = {
    "h264": ("H264", 96, "rtph264depay"),
    "h265": ("H265", 96, "rtph265depay"),
    "jpeg": ("JPEG", 26, "rtpjpegdepay"),
}


def gstreamer(where: str) -> str:
    """Return the GStreamer pipeline that ``gst://``, ``csi://`` or ``rtp://`` stands for. Raises UsageError."""
    scheme, _, rest = where.partition("://")
    match scheme.lower():
        case "csi":
            return _csi(where)
        case "rtp":
            return _rtp(where)
        case _:
            return rest


class Pipeline:
    """A GStreamer pipeline without its sink: frames until it fails, which is the caller's to mend.

    A pipeline silent for ``READ_S`` (``START_S`` before its first picture) is killed with all that it started.
    """

    live = True
    count = None

    def __init__(self, description: str, name: str) -> None:
        self.name = name
        try:
            self._description = shlex.split(description)
        except ValueError as error:
            raise UsageError(f"{name}: {error}; expected a pipeline as gst-launch-1.0 takes it") from error
        if not self._description or "!" in (self._description[0], self._description[-1]):
            raise UsageError(f"{name}: expected gst://ELEMENT ! … ! ELEMENT, as gst-launch-1.0 takes it")
        last = " ".join(self._description).rpartition("!")[2].split()[0]
        if last.endswith("sink"):
            raise UsageError(f"{name}: ends in {last}; leave the sink out, the pictures are read from a pipe")
        if shutil.which("gst-launch-1.0") is None:
            raise MissingError(
                "gst-launch-1.0 is not installed; run: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
            )
        self._child: _Child | None = None

    def frames(self) -> Iterator[Frame]:
        """Start the child and read until it ends. Raises SourceError with what it said last."""
        cv2 = opencv()
        self.close()
        number = 0
        shape: _Shape | None = None
        self._child = child = _Child(self.name, [*self._description, *_TAIL.split()])
        try:
            while True:
                length = child.part(READ_S if number else START_S)
                captured_ns, captured_utc_ns = time.monotonic_ns(), time.time_ns()
                part = child.read(length)
                if shape is None:
                    shape = _Shape.parse(part, self.name)
                    part = part[part.index(b"\n") + 1 :]
                elif length != shape.size + len(_PICTURE):  # y4menc does not repeat its header: only a restart tells
                    raise SourceError(f"{self.name}: the pictures changed their size from {shape}; starting again")
                pixels = cv2.cvtColor(shape.planes(part), cv2.COLOR_YUV2BGR_I420)
                yield Frame(pixels, number, captured_ns, captured_utc_ns, order="bgr")
                number += 1
        finally:
            self.close()

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.end()
            self._child = None


_PICTURE = b"FRAME\n"


@dataclass(frozen=True)
class _Shape:
    """The layout of one I420 picture: GStreamer pads rows to four bytes and planes to an even height."""

    width: int
    height: int

    @classmethod
    def parse(cls, part: bytes, name: str) -> _Shape:
        found = re.match(rb"YUV4MPEG2 [^\n]*?\bW(\d+) H(\d+)[^\n]*\nFRAME\n", part)
        if found is None:
            raise SourceError(f"{name}: the pipeline gives no pictures but {part[:20]!r}; end it in raw video")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @property
    def _strides(self) -> tuple[int, int]:
        return -(-self.width // 4) * 4, -(-((self.width + 1) // 2) // 4) * 4

    @property
    def size(self) -> int:
        luma, chroma = self._strides
        return (luma + chroma) * (self.height + self.height % 2)

    def planes(self, part: bytes) -> NDArray[np.uint8]:
        """Return ``[height * 3 / 2, width]`` without padding, of even width and height, as OpenCV wants it."""
        raw = np.frombuffer(part, np.uint8, offset=len(_PICTURE))
        width, height = self.width & ~1, self.height & ~1
        luma, chroma = self._strides
        if (luma, chroma * 2, self.height) == (width, width, height):
            return raw.reshape(height * 3 // 2, width)
        rows = self.height + self.height % 2
        grey = raw[: luma * rows].reshape(rows, luma)[:height, :width]
        colour = raw[luma * rows :].reshape(2, rows // 2, chroma)[:, : height // 2, : width // 2]
        return np.concatenate([grey.ravel(), colour.ravel()]).reshape(height * 3 // 2, width)


class _Child:
    """A running gst-launch-1.0, its output read with a time limit, its complaints kept."""

    def __init__(self, name: str, description: Sequence[str]) -> None:
        self._name = name
        self._said = b""
        self._rest = b""
        # Where the kernel can promise it, the child dies with the thread that started it, however that ends.
        promise = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*promise, "gst-launch-1.0", "-q", *description],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        with suppress(OSError):  # a whole megabyte at a time, where the system grants it
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._err, select.POLLIN)

    def part(self, patience_s: float) -> int:
        """Read one multipart header and return the length of what follows."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > _MOST_HEADER:
                raise SourceError(f"{self._name}: the pipeline writes to its standard output; keep that for pictures")
            self._rest += self._more(_MOST_HEADER, patience_s)
        header, self._rest = self._rest[:end], self._rest[end + 4 :]
        found = re.search(rb"Content-Length: (\d+)", header)
        if found is None:
            raise SourceError(f"{self._name}: the pipeline writes to its standard output; keep that for pictures")
        return int(found[1])

    def read(self, length: int) -> bytes:
        """Read exactly so many bytes."""
        parts, wanted = [self._rest[:length]], length - len(self._rest[:length])
        self._rest = self._rest[length:]
        while wanted:
            parts.append(self._more(wanted, READ_S))
            wanted -= len(parts[-1])
        return b"".join(parts)

    def end(self) -> None:
        """Ask it to end, then make it; nothing of it is left, not even a zombie."""
        if self._process.poll() is None:
            self._signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_QUIT_S)
        self._signal(signal.SIGKILL)  # also what the child started and left behind
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _more(self, most: int, patience_s: float) -> bytes:
        deadline = time.monotonic() + patience_s
        while True:
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)
            if not ready:
                raise SourceError(f"{self._name}: silent for {patience_s:g} s{self._complaint()}; starting again")
            fds = {fd for fd, _ in ready}
            if self._err in fds:
                chunk = os.read(self._err, _MOST_HEADER)
                self._said = (self._said + chunk)[-_MOST_HEADER:]
                if not chunk:
                    self._poll.unregister(self._err)
            if self._out in fds:
                chunk = os.read(self._out, most)
                if chunk:
                    return chunk
                self._hear_out()
                raise SourceError(f"{self._name}: the pipeline ended{self._complaint()}; check it with gst-launch-1.0")

    def _hear_out(self) -> None:
        """Take what the ended child still had to say."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_QUIT_S)
        os.set_blocking(self._err, False)
        with suppress(BlockingIOError):
            self._said += os.read(self._err, 1 << 16)

    def _complaint(self) -> str:
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"ERROR|WARNING: erroneous", line)]
        # GStreamer says what is wrong first, and then at length what it did about it.
        return f" ({redact(_brief((errors or lines[-1:])[0]))})" if lines else ""


def _brief(line: str) -> str:
    return re.sub(r"^(?:ERROR|WARNING): (?:from element \S+: |erroneous pipeline: )?", "", line).rstrip(".")


def _csi(where: str) -> str:
    parts = urlsplit(where)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    size = re.fullmatch(r"(\d+)x(\d+)", given.pop("size", "1280x720"))
    fps = given.pop("fps", "30")
    if given or size is None or not parts.netloc.isdigit() or not fps.isdigit():
        raise UsageError(f"{where}: not understood; expected csi://0 or csi://0?size=1280x720&fps=30")
    return _CSI.format(sensor=parts.netloc, width=size[1], height=size[2], fps=fps)


def _rtp(where: str) -> str:
    """RTP tells neither its codec nor its clock, so both are settled here: H.264 unless told otherwise."""
    parts = urlsplit(where)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    codec = _CODECS.get(given.pop("codec", "h264"))
    try:
        port = parts.port
    except ValueError:
        port = None
    if given or codec is None or port is None or parts.path.strip("/"):
        raise UsageError(
            f"{where}: not understood; expected rtp://@:5004 or rtp://239.1.1.1:5004?codec=h265 (h264, h265 or jpeg); "
            "for anything else write the pipeline: gst://udpsrc port=5004 caps=… ! …"
        )
    name, payload, depay = codec
    return _RTP.format(address=parts.hostname or "0.0.0.0", port=port, name=name, payload=payload, depay=depay)  # noqa: S104 - as jetson-utils' rtp://@ says
