"""GStreamer as a child process: a driver that hangs can be killed, and no Python binding has to fit.

The child writes YUV4MPEG2 pictures, each wrapped in a multipart header that states its length. The size comes from the
picture's own header, so that a camera that changes it is noticed before one wrong byte is taken for a pixel.
"""

from __future__ import annotations

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

from overflight.jetson.telemetry import on_device
from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.planes import Planes
from overflight.runtime.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_S = 8.0  # a CSI sensor and its daemon take up to five seconds to deliver the first picture
READ_S = 3.0
LISTEN_S = 3600.0  # for a sender that has not come yet
_QUIT_S = 1.0  # for a polite end: nvarguscamerasrc, killed at once, may leave its daemon locked
_MOST_HEADER = 4096
_NEWEST = "! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
# By way of YV12, so that every picture is copied: a decoder pads its own, and y4menc writes the padding out. The matrix
# is settled here because the format has no word for it.
_TAIL = (
    "! videoconvert ! video/x-raw,format=YV12 ! videoconvert ! video/x-raw,format=I420,colorimetry=bt709 "
    "! y4menc ! multipartmux boundary=picture ! fdsink fd=1 sync=false"
)
_CSI = (
    "nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 "
    "! nvvidconv ! video/x-raw,format=I420"
)
_RTP = (
    "udpsrc address={address} port={port} "
    "caps=application/x-rtp,media=video,clock-rate=90000,encoding-name={name},payload={payload} "
    "! rtpjitterbuffer latency=50 drop-on-latency=true ! {depay} ! decodebin{convert}"
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


def has_gstreamer() -> bool:
    """Whether GStreamer's launcher is installed."""
    return shutil.which("gst-launch-1.0") is not None


def network(where: str) -> str:
    """Return the pipeline that reads a network stream."""
    if where.startswith("rtsp"):
        source = f"rtspsrc location={shlex.quote(where)} latency=50 drop-on-latency=true ! decodebin"
    else:
        source = f"uridecodebin uri={shlex.quote(where)}"
    return source + _from_device_memory()


def recording(path: Path) -> str:
    """Return the pipeline that reads a file."""
    return f"filesrc location={shlex.quote(str(path))} ! decodebin{_from_device_memory()}"


def srt(where: str) -> str:
    """Return the pipeline that calls, or listens for, a stream over SRT; ``srt://:9000`` listens everywhere."""
    where = re.sub(r"(?i)^srt://:", "srt://0.0.0.0:", where)
    return f"srtsrc uri={shlex.quote(where)} ! decodebin{_from_device_memory()}"


def _from_device_memory() -> str:
    """A board's decoders leave pictures in device memory, which only its own converter reads."""
    return " ! nvvidconv ! video/x-raw,format=I420" if on_device() else ""


class Pipeline:
    """A GStreamer pipeline without its sink: frames until it fails; the caller opens it again.

    A pipeline silent for ``READ_S`` (``START_S`` before its first picture) is killed with all that it started. One that
    is not ``live`` reads a recording: every picture, at the time that the frame rate gives it. One that
    ``listens`` waits for its sender.
    """

    count = None

    def __init__(self, description: str, name: str, *, live: bool = True, listens: bool = False) -> None:
        self.name = name
        self.live = live
        self.listens = listens
        try:
            self._description = shlex.split(description)
        except ValueError as error:
            raise UsageError(f"{name}: {error}; expected a pipeline as gst-launch-1.0 takes it") from error
        if not self._description or "!" in (self._description[0], self._description[-1]):
            raise UsageError(f"{name}: expected gst://ELEMENT ! … ! ELEMENT, as gst-launch-1.0 takes it")
        last = " ".join(self._description).rpartition("!")[2].split()[0]
        if last.endswith("sink"):
            raise UsageError(f"{name}: ends in {last}; leave the sink out, the pictures are read from a pipe")
        if not has_gstreamer():
            raise MissingError(
                "gst-launch-1.0 is not installed; run: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
            )
        self._child: _Child | None = None

    def frames(self) -> Iterator[Frame]:
        """Start the child and read until it ends. Raises SourceError with what it said last."""
        self.close()
        number = 0
        shape: _Shape | None = None
        tail = [*(_NEWEST.split() if self.live else []), *_TAIL.split()]
        self._child = child = _Child(self.name, [*self._description, *tail])
        try:
            while True:
                try:
                    length = child.part(READ_S if number else LISTEN_S if self.listens else START_S)
                except _EndError:
                    if self.live or not number:
                        raise
                    return
                captured_ns, captured_utc_ns = time.monotonic_ns(), time.time_ns() if self.live else None
                part = child.read(length)
                if shape is None:
                    shape = _Shape.parse(part, self.name)
                    part = part[part.index(b"\n") + 1 :]
                elif length != shape.size + len(_PICTURE):  # y4menc does not repeat its header: only a restart shows it
                    raise SourceError(f"{self.name}: the pictures changed their size from {shape}; starting again")
                media_ns = None if self.live else shape.media_ns(number)
                yield Frame(shape.planes(part), number, captured_ns, captured_utc_ns, media_ns=media_ns)
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
    rate: tuple[int, int] = (0, 1)
    pixel_aspect: float = 1.0

    @classmethod
    def parse(cls, part: bytes, name: str) -> _Shape:
        found = re.match(rb"YUV4MPEG2 [^\n]*?\bW(\d+) H(\d+)([^\n]*)\nFRAME\n", part)
        if found is None:
            raise SourceError(f"{name}: the pipeline gives no pictures but {part[:20]!r}; end it in raw video")
        rate = re.search(rb" F(\d+):([1-9]\d*)", found[3])
        aspect = re.search(rb" A([1-9]\d*):([1-9]\d*)", found[3])
        return cls(
            int(found[1]),
            int(found[2]),
            (int(rate[1]), int(rate[2])) if rate else (0, 1),
            int(aspect[1]) / int(aspect[2]) if aspect else 1.0,
        )

    def media_ns(self, number: int) -> int | None:
        """The time of a recording's picture, None where the rate is not stated."""
        frames, seconds = self.rate
        return number * seconds * 1_000_000_000 // frames if frames else None

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @property
    def _strides(self) -> tuple[int, int]:
        return -(-self.width // 4) * 4, -(-((self.width + 1) // 2) // 4) * 4

    @property
    def size(self) -> int:
        luma, chroma = self._strides
        return (luma + chroma) * (self.height + self.height % 2)

    def planes(self, part: bytes) -> Planes:
        """Return the picture's planes without their padding."""
        raw = np.frombuffer(part, np.uint8, offset=len(_PICTURE))
        luma, chroma = self._strides
        rows = self.height + self.height % 2
        grey = raw[: luma * rows].reshape(rows, luma)[: self.height, : self.width]
        colours = raw[luma * rows :].reshape(2, rows // 2, chroma)[:, :, : (self.width + 1) // 2]
        return Planes(grey, (colours[0], colours[1]), "bt709", pixel_aspect=self.pixel_aspect)


class _EndError(SourceError):
    """The pipeline came to its end."""


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
        import fcntl  # not on Windows

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
                raise _EndError(f"{self._name}: the pipeline ended{self._complaint()}; check it with gst-launch-1.0")

    def _hear_out(self) -> None:
        """Take what the ended child still had to say."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_QUIT_S)
        os.set_blocking(self._err, False)
        with suppress(BlockingIOError):
            self._said += os.read(self._err, 1 << 16)

    def _complaint(self) -> str:
        said = _reason(self._said.decode(errors="replace"))
        return f" ({redact(said)})" if said else ""


def _reason(said: str) -> str:
    """Return what a pipeline says is wrong: first, and then at length what it did about it.

    A board's camera source writes "Error generated. FILE, execute:656 Failed to create CaptureSession" and then ends as
    if there were no more pictures.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR|Error generated|WARNING: erroneous", line)]
    line = (errors or lines[-1:] or [""])[0]
    if "Failed to create CaptureSession" in line:
        return "Failed to create CaptureSession: sudo systemctl restart nvargus-daemon"
    line = re.sub(r"^(?:ERROR|WARNING): (?:from element \S+: |erroneous pipeline: )?", "", line)
    return re.sub(r"^Error generated\. \S+, ", "", line).rstrip(".")


def _csi(where: str) -> str:
    parts = urlsplit(where)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    size = re.fullmatch(r"(\d+)x(\d+)", given.pop("size", "1280x720"))
    fps = given.pop("fps", "30")
    if given or size is None or not parts.netloc.isdigit() or not fps.isdigit():
        raise UsageError(f"{where}: not understood; expected csi://0 or csi://0?size=1280x720&fps=30")
    return _CSI.format(sensor=parts.netloc, width=size[1], height=size[2], fps=fps)


def _rtp(where: str) -> str:
    """RTP states neither its codec nor its clock, so both are settled here: H.264 unless ``?codec=`` names another."""
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
    address = parts.hostname or "0.0.0.0"  # noqa: S104 - as jetson-utils' rtp://@ says
    return _RTP.format(
        address=address, port=port, name=name, payload=payload, depay=depay, convert=_from_device_memory()
    )
