"""Network streams through PyAV: pictures with their true age, and nothing built on what was lost."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.redact import redact
from overflight.runtime.sources.capture_clock import CaptureClock
from overflight.runtime.sources.decoder import Decoder, pyav

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_S = 5.0
READ_S = 3.0  # without a packet, not without a picture: a picture may need a keyframe that comes every ten seconds
LISTEN_S = 3600.0  # how long a listener waits for the aircraft before it opens its port anew
STALE_NS = 2_000_000_000  # older pictures tell nothing about now
LAG_S = 5.0  # of nothing but stale pictures: a new connection leaves the backlog behind
# No packet waits in the demultiplexer. Two megabytes hold a burst of a keyframe on UDP.
_OPTIONS = {
    "fflags": "nobuffer",
    "analyzeduration": "1500000",
    "probesize": "500000",
    "overrun_nonfatal": "1",
    "buffer_size": "2097152",
    "fifo_size": "28672",
}


class LiveVideo:
    """A network stream: frames until it fails; the caller opens it again.

    ``heard_ns`` is when the last packet arrived: packets without a picture are a stream that waits for a keyframe.
    RTSP is tried over TCP first, then over UDP where the server refuses that.
    """

    live = True
    count = None

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self._address = address
        self._container: Any = None
        self.notes: list[str] = []
        self.heard_ns = 0
        self._stale_since_ns: int | None = None
        self._dropped: Counter[str] = Counter()

    def frames(self) -> Iterator[Frame]:
        """Open and read until the stream ends. Raises SourceError when it cannot be opened or stops."""
        av = pyav()
        self.close()
        self._container = container = self._open(av)
        number = 0
        try:
            stream = _moving(container, self.name)
            stream.codec_context.thread_count = 1  # each thread more that decodes whole pictures holds one back
            stream.codec_context.flags |= av.codec.context.Flags.low_delay
            decoder = Decoder(stream, listening=True)
            dating = _Dating(stream)
            for packet in container.demux(stream):
                self.heard_ns = arrived_ns = time.monotonic_ns()
                dating.arrive(packet, arrived_ns)
                for decoded, picture in decoder.decode(packet):
                    captured_ns = dating.captured_ns(decoded, arrived_ns)
                    if picture is not None and not self._is_stale(captured_ns, arrived_ns):
                        utc_ns = time.time_ns() - (time.monotonic_ns() - captured_ns)
                        yield Frame(picture, number, captured_ns, utc_ns)
                    number += 1
                self._dropped["damaged"] += decoder.damaged
                decoder.damaged = 0
        except av.FFmpegError as error:
            raise SourceError(
                f"{self.name}: stopped after {number} frames ({_reason(error)}); check the link"
            ) from error
        finally:
            self.close()
        raise SourceError(f"{self.name}: stopped after {number} frames: the sender ended the stream")

    def take_dropped(self) -> Counter[str]:
        """Return what was not passed on since the last call, by reason."""
        dropped, self._dropped = +self._dropped, Counter()
        return dropped

    def close(self) -> None:
        """Let the connection go."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _is_stale(self, captured_ns: int, arrived_ns: int) -> bool:
        if arrived_ns - captured_ns <= STALE_NS:
            self._stale_since_ns = None
            return False
        self._dropped["stale"] += 1
        self._stale_since_ns = self._stale_since_ns or arrived_ns
        if arrived_ns - self._stale_since_ns > LAG_S * 1e9:
            raise SourceError(
                f"{self.name}: pictures arrive {(arrived_ns - captured_ns) / 1e9:.1f} s old: the link is slower than "
                "the stream; connecting again, lower the camera's bit rate"
            )
        return True

    def _open(self, av: Any) -> Any:
        self._stale_since_ns = None
        scheme = urlsplit(self._address).scheme.lower()
        attempts: list[dict[str, str]] = [{}]
        if scheme in {"rtsp", "rtsps"}:
            attempts = [{"rtsp_transport": "tcp"}, {"rtsp_transport": "udp"}]
        refused: Exception | None = None
        for attempt in attempts:
            try:
                return av.open(
                    self._address, options=_OPTIONS | attempt, timeout=(OPEN_S, READ_S), metadata_errors="replace"
                )
            except av.FFmpegError as error:
                refused = error
                if not _is_refused_transport(error):
                    break
            except ValueError as error:  # what is in a URL that cannot be one
                refused = error
        raise SourceError(f"{self.name}: cannot be opened: {_advice(refused)}") from refused


class _Dating:
    """The capture time of each picture. FFmpeg gives a picture out when the next one's first bytes arrive.

    So the arrival of a packet is the arrival of the picture after it, and its own is when the packet before it came.
    """

    def __init__(self, stream: Any) -> None:
        self._clock = CaptureClock()
        self._time_base = stream.time_base
        self._before_ns: int | None = None
        self._arrivals: dict[int, int] = {}

    def arrive(self, packet: Any, arrived_ns: int) -> None:
        if packet.pts is not None and packet.size:
            self._arrivals[packet.pts] = self._before_ns or arrived_ns
            self._before_ns = arrived_ns
            while len(self._arrivals) > 64:
                del self._arrivals[next(iter(self._arrivals))]

    def captured_ns(self, decoded: Any, arrived_ns: int) -> int:
        if decoded.pts is None:
            return self._before_ns or arrived_ns
        came_ns = self._arrivals.pop(decoded.pts, arrived_ns)
        return self._clock.captured_ns(int(decoded.pts * self._time_base * 1_000_000_000), came_ns)


def _moving(container: Any, name: str) -> Any:
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name}: carries no picture that can be decoded, only {kinds}; check the address")
    return streams[0]


def _is_refused_transport(error: Exception) -> bool:
    return "nsupported" in str(error) or "rotocol not supported" in str(error) or getattr(error, "errno", 0) in {93, 94}


def _reason(error: BaseException | None) -> str:
    from av.error import ExitError

    if isinstance(error, ExitError):
        return f"silent for {READ_S:g} s"
    return redact(str(getattr(error, "strerror", None) or error))


def _advice(error: BaseException | None) -> str:
    from av import error as errors

    match error:
        case errors.HTTPUnauthorizedError() | errors.HTTPForbiddenError():
            return "wrong user name or password; write rtsp://USER:PASSWORD@HOST/PATH, with % codes for @ : / ? #"
        case errors.HTTPNotFoundError():
            return "the server has nothing under this path; check the path"
        case errors.ConnectionRefusedError():
            return "no server on this port; check the address and that the camera is on"
        case errors.ExitError():
            return f"no answer in {OPEN_S:g} s; check the address, the network and that the sender is on"
        case _:
            return f"{_reason(error)}; check the address and the network"
