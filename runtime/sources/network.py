"""Network streams through PyAV: pictures with their true age, and nothing built on what was lost."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from statistics import median
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.pose.klv import LiveMetadata
from overflight.runtime.redact import redact
from overflight.runtime.sources import datagrams
from overflight.runtime.sources.capture_clock import CaptureClock
from overflight.runtime.sources.datagrams import Datagrams
from overflight.runtime.sources.decoder import Decoder, overheard, pyav

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_S = 5.0
READ_S = 3.0  # without a packet, not without a picture: a picture may need a keyframe that comes every ten seconds
LISTEN_S = 30.0  # after which a listener opens its port again, so that it can also be ended
STALE_NS = 2_000_000_000  # older pictures tell nothing about now
LAG_S = 5.0  # of nothing but stale pictures: a new connection leaves the backlog behind
_NO_ANSWER = "no answer in {:g} s; check the address, the network and that the sender is on"
_CHUNK = 1 << 16  # bytes: more than the largest datagram
_WRONG_KEY = re.compile("Unexpected stream|App field don't match")  # FFmpeg warns, and takes the stream all the same
_LOOKED_AT = 64  # packets
_NO_PARSE = 0x20  # AVFMT_FLAG_NOPARSE
# Bare streams, which have no borders between pictures but those that a parser finds, and no time stamps of their own.
_BARE = frozenset({"h264", "hevc", "mpegvideo", "m4v", "obu"})
# No packet waits in the demultiplexer or a parser. Two megabytes hold a burst of a keyframe on UDP.
_OPTIONS = {
    "fflags": "nobuffer+noparse",
    "analyzeduration": "500000",
    "fpsprobesize": "0",
    "probesize": "500000",
    "overrun_nonfatal": "1",
    "buffer_size": "2097152",
    "fifo_size": "28672",
}


_FULL = 200 << 10  # of FFmpeg's mpegts.c: no packet is larger, and the rest of a picture follows without a time stamp
_TRANSPORT_PACKET = 188


class LiveVideo:
    """A network stream: frames until it fails; the caller opens it again.

    ``heard_ns`` is when the last packet arrived: packets without a picture are a stream that waits for a keyframe.
    An address that ends in ``?listen`` waits for the sender to come: RTMP, as controllers of drones push it.
    """

    live = True
    count = None

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self._address, listen, _ = address.partition("?listen")
        self.listens = bool(listen)
        self._container: Any = None
        self._datagrams: Datagrams | None = None
        self.notes: list[str] = []
        self.heard_ns = 0
        self.trouble: str | None = None
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
            decoder = Decoder(stream.codec_context, stream, listening=True)
            if container.format.name in _BARE:
                container.flags &= ~_NO_PARSE
            dating = _Dating(stream, container.format.name, self._datagrams)
            data = [one for one in container.streams if one.type == "data"]
            metadata = LiveMetadata() if data else None
            packets = container.demux(stream, *data)
            if metadata is not None:
                packets = self._without_metadata(packets, metadata, dating)
            for parts in self._pictures(packets):
                packet, arrived_ns = _joined(parts), self.heard_ns
                dating.arrive(packet, arrived_ns, parts[0].pos)
                for decoded, picture in decoder.decode(packet, corrupt=any(part.is_corrupt for part in parts)):
                    captured_ns = dating.captured_ns(decoded, arrived_ns)
                    if picture is not None and not self._is_stale(captured_ns, arrived_ns):
                        utc_ns = time.time_ns() - (time.monotonic_ns() - captured_ns)
                        said = metadata.at(dating.stamp_ns(decoded.pts)) if metadata is not None else (None, None)
                        yield Frame(picture, number, captured_ns, utc_ns, pose=said[0], camera=said[1])
                    number += 1
                self._dropped["damaged"] += decoder.damaged
                decoder.damaged = 0
        except (av.FFmpegError, TimeoutError) as error:
            raise SourceError(
                f"{self.name}: stopped after {number} frames ({_reason(error)}); check the link"
            ) from error
        finally:
            self.close()
        raise SourceError(f"{self.name}: stopped after {number} frames: the sender ended the stream")

    def _pictures(self, packets: Iterator[Any]) -> Iterator[list[Any]]:
        """Yield the parts of each picture: of a transport stream FFmpeg hands out a large one in pieces."""
        parts: list[Any] = []
        for packet in packets:
            self.heard_ns = time.monotonic_ns()
            if parts and (packet.pts is not None or not packet.size):
                yield parts
                parts = []
            parts.append(packet)
            if packet.size <= _FULL - _TRANSPORT_PACKET:
                yield parts
                parts = []
        if parts:
            yield parts

    def _without_metadata(self, packets: Iterator[Any], metadata: LiveMetadata, dating: _Dating) -> Iterator[Any]:
        """Yield the pictures' packets and collect those beside them."""
        for packet in packets:
            if packet.stream.type == "video":
                yield packet
            elif packet.size:
                metadata.put(dating.stamp_ns(packet.pts), bytes(packet))
                if metadata.note is not None:
                    self.notes = [metadata.note]

    def take_dropped(self) -> Counter[str]:
        """Return what was not passed on since the last call, by reason."""
        dropped, self._dropped = +self._dropped, Counter()
        return dropped

    def close(self) -> None:
        """Let the connection go."""
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None

    def _is_stale(self, captured_ns: int, arrived_ns: int) -> bool:
        if arrived_ns - captured_ns <= STALE_NS:
            self._stale_since_ns = self.trouble = None
            return False
        self._dropped["stale"] += 1
        self.trouble = f"pictures arrive {(arrived_ns - captured_ns) / 1e9:.1f} s old and are dropped as stale"
        self._stale_since_ns = self._stale_since_ns or arrived_ns
        if arrived_ns - self._stale_since_ns > LAG_S * 1e9:
            raise SourceError(
                f"{self.name}: pictures arrive {(arrived_ns - captured_ns) / 1e9:.1f} s old: the link is slower than "
                "the stream; connecting again, lower the camera's bit rate"
            )
        return True

    def _open_datagrams(self, av: Any) -> Any:
        until_s = time.monotonic() + OPEN_S
        try:
            self._datagrams = feed = Datagrams(self._address, READ_S)
            feed.until_s = until_s
            container = av.open(feed, options=_OPTIONS, buffer_size=_CHUNK, metadata_errors="replace")
            feed.until_s = None
            return container
        except (av.FFmpegError, OSError, ValueError) as error:
            self.close()
            silent = isinstance(error, TimeoutError)
            advice = _NO_ANSWER.format(OPEN_S) if silent else _advice(error)
            raise SourceError(f"{self.name}: cannot be opened: {advice}") from error

    def _open(self, av: Any) -> Any:
        self._stale_since_ns = None
        if datagrams.takes(self._address):
            return self._open_datagrams(av)
        while True:
            try:
                with overheard(av.logging.WARNING) as lines:
                    container = av.open(
                        self._address,
                        options=_OPTIONS | ({"listen": "1"} if self.listens else {}),
                        timeout=(LISTEN_S if self.listens else OPEN_S, READ_S),
                        metadata_errors="replace",
                    )
                if not any(_WRONG_KEY.search(line) for _, _, line in lines):
                    return container
                container.close()
                self._dropped["wrong-key"] += 1
            except av.error.ExitError as error:
                if not self.listens:
                    raise SourceError(f"{self.name}: cannot be opened: {_advice(error)}") from error
            except (av.FFmpegError, ValueError) as error:
                raise SourceError(f"{self.name}: cannot be opened: {_advice(error)}") from error


class _Dating:
    """The capture time of each picture, from its time stamp and the fastest arrivals.

    Where ``datagrams`` say so, a picture arrives with its first byte. Else it arrives when the demultiplexer gives it
    out, which in a transport stream is when the next one begins, one interval late.
    """

    def __init__(self, stream: Any, kind: str, datagrams: Datagrams | None) -> None:
        self._clock = CaptureClock()
        self._time_base = stream.time_base
        self._datagrams = datagrams
        self._held = datagrams is None and (kind == "mpegts" or kind in _BARE)
        self._counted = 0 if kind in _BARE else None
        self._last_ns: int | None = None
        self._intervals: deque[int] = deque(maxlen=_LOOKED_AT)
        self._arrivals: dict[int, int] = {}

    def arrive(self, packet: Any, arrived_ns: int, position: int) -> None:
        """Note when a packet came, which begins at ``position``. Those of a bare stream are numbered."""
        if self._counted is not None and packet.size:
            self._counted += 1
            packet.pts = packet.dts = self._counted
        if packet.pts is None or not packet.size:
            return
        if self._datagrams is not None:
            arrived_ns = self._datagrams.arrived_ns(position) or arrived_ns
        stamp_ns = self._ns(packet.pts) if self._counted is None else arrived_ns
        if self._last_ns is not None:
            self._intervals.append(abs(stamp_ns - self._last_ns))
        self._last_ns = stamp_ns
        self._arrivals[packet.pts] = arrived_ns
        while len(self._arrivals) > _LOOKED_AT:
            del self._arrivals[next(iter(self._arrivals))]

    def captured_ns(self, decoded: Any, arrived_ns: int) -> int:
        """Return when a decoded picture was taken."""
        if decoded.pts is None:
            return arrived_ns
        came_ns = self._arrivals.pop(decoded.pts, arrived_ns)
        if self._counted is None:
            came_ns = self._clock.captured_ns(self._ns(decoded.pts), came_ns)
        return came_ns - (int(median(self._intervals)) if self._held and self._intervals else 0)

    def stamp_ns(self, pts: int | None) -> int:
        """Return a time stamp in nanoseconds; that of the last picture for what has none."""
        return (self._last_ns or 0) if pts is None else self._ns(pts)

    def _ns(self, pts: int) -> int:
        return int(pts * self._time_base * 1_000_000_000)


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = pyav().Packet(b"".join(map(bytes, parts)))
    whole.pts, whole.dts, whole.time_base = first.pts, first.dts, first.time_base
    whole.stream, whole.is_keyframe = first.stream, first.is_keyframe
    return whole


def _moving(container: Any, name: str) -> Any:
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name}: carries no picture that can be decoded, only {kinds}; check the address")
    return streams[0]


def _reason(error: BaseException | None) -> str:
    from av.error import ExitError

    if isinstance(error, ExitError | TimeoutError):
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
            return _NO_ANSWER.format(OPEN_S)
        case _:
            return f"{_reason(error)}; check the address and the network"
