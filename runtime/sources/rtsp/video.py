"""A camera's RTSP stream as frames."""

from __future__ import annotations

import io
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.sources import network
from overflight.runtime.sources.capture_clock import CaptureClock
from overflight.runtime.sources.decoder import Decoder, pyav
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.rtsp.pictures import Assembler, Codec, CodedPicture
from overflight.runtime.sources.rtsp.rtp import ReorderBuffer, RtpPacket, SenderReport, Unwrapped
from overflight.runtime.sources.rtsp.session import Media, RtspError, RtspSession, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODECS: dict[str, Codec] = {"H264": "h264", "H265": "hevc", "HEVC": "hevc"}
# A sender's clock is taken where it puts the capture before the fastest arrival and not long before it.
_CLOCK_AHEAD_NS, _CLOCK_BEHIND_NS = 20_000_000, 2_000_000_000


class RtspVideo(LiveVideo):
    """An RTSP stream over TCP, or over UDP where the server refuses TCP or ``#transport=udp`` asks for it.

    Codecs other than H.264 and H.265 are left to FFmpeg's own reader.
    """

    def __init__(self, address: str, name: str) -> None:
        address, _, options = address.partition("#transport=")
        super().__init__(address, name)
        if options not in {"", "tcp", "udp"}:
            raise UsageError(f"{name}: #transport={options} is not understood; expected tcp or udp")
        self._transports: list[Transport] = (
            ["udp"] if options == "udp" else ["tcp"] if options == "tcp" else ["tcp", "udp"]
        )
        self._session: RtspSession | None = None

    def frames(self) -> Iterator[Frame]:
        """Connect and read until the stream ends. Raises SourceError when it is refused or stops."""
        pyav()
        self.close()
        try:
            media = self._begin()
            codec = _CODECS.get(media.encoding)
            if codec is not None:
                yield from self._read(media, codec)
                return
        finally:
            self.close()
        yield from super().frames()

    def close(self) -> None:
        """Let the connection go."""
        super().close()
        session, self._session = getattr(self, "_session", None), None
        if session is not None:
            session.close()

    def _begin(self) -> Media:
        self._stale_since_ns = None
        for transport in self._transports:
            self._session = session = RtspSession(
                self._address, self.name, open_s=network.OPEN_S, read_s=network.READ_S
            )
            media = session.describe()
            if media.encoding not in _CODECS:
                return media
            try:
                session.play(media, transport)
                return media
            except RtspError as error:
                if error.status != 461 or transport == self._transports[-1]:
                    raise
                session.close()
        raise SourceError(f"{self.name}: no transport")

    def _read(self, media: Media, codec: Codec) -> Iterator[Frame]:
        assert self._session is not None
        reorder, assembler = ReorderBuffer(), Assembler(codec)
        pictures = _Pictures(media, codec)
        number = 0
        for channel, raw, arrived_ns in self._session.packets():
            self.heard_ns = arrived_ns
            if channel == "rtcp":
                pictures.report(SenderReport.parse(raw))
                continue
            packet = RtpPacket.parse(raw, arrived_ns)
            if packet is None:
                continue
            for one in reorder.put(packet):
                for coded in assembler.put(one):
                    for captured_ns, picture in pictures.decode(coded):
                        now_ns = time.monotonic_ns()
                        if picture is not None and not self._is_stale(captured_ns, now_ns):
                            yield Frame(picture, number, captured_ns, time.time_ns() - (now_ns - captured_ns))
                        number += 1
            self._dropped["damaged"] += pictures.take_damaged()
            self._dropped["packet-lost"] += reorder.lost
            reorder.lost = 0


class _Pictures:
    """Decodes coded pictures and dates them."""

    def __init__(self, media: Media, codec: Codec) -> None:
        av = pyav()
        self._av, self._codec = av, codec
        self._hz = media.clock_hz
        self._context = av.CodecContext.create(codec, "r")
        self._context.thread_count = 1
        self._context.flags |= av.codec.context.Flags.low_delay
        if media.parameters:
            self._context.extradata = b"".join(b"\x00\x00\x00\x01" + one for one in media.parameters)
        self._decoder: Decoder | None = None
        self._unwrapped, self._clock = Unwrapped(), CaptureClock()
        self._arrivals: dict[int, int] = {}
        self._report: tuple[int, int] | None = None  # the sender's clock at an unwrapped stamp

    def report(self, report: SenderReport | None) -> None:
        """Take the sender's clock."""
        if report is not None:
            self._report = (report.utc_ns, report.timestamp)

    def take_damaged(self) -> int:
        """Return how many pictures were not passed on since the last call."""
        if self._decoder is None:
            return 0
        damaged, self._decoder.damaged = self._decoder.damaged, 0
        return damaged

    def decode(self, coded: CodedPicture) -> Iterator[tuple[int, Any]]:
        """Yield the capture time and the picture, None where it is damaged, of each frame that comes out."""
        if self._decoder is None:
            self._decoder = Decoder(self._context, self._stream_of(coded.data), listening=True)
        stamp = self._unwrapped.of(coded.timestamp)
        packet = self._av.Packet(coded.data)
        packet.pts = packet.dts = stamp
        packet.time_base = Fraction(1, self._hz)
        captured_ns = self._captured_ns(stamp, coded)
        self._arrivals[stamp] = captured_ns
        while len(self._arrivals) > 64:
            del self._arrivals[next(iter(self._arrivals))]
        if coded.gap:
            self._decoder.lose()
        for frame, picture in self._decoder.decode(
            packet, corrupt=coded.damaged, key=coded.key, recovery=coded.recovery
        ):
            yield self._arrivals.pop(frame.pts, captured_ns), picture

    def _captured_ns(self, stamp: int, coded: CodedPicture) -> int:
        fitted_ns = self._clock.captured_ns(stamp * 1_000_000_000 // self._hz, coded.arrived_ns)
        if self._report is None:
            return fitted_ns
        utc_ns, at = self._report
        step = (coded.timestamp - at) & 0xFFFFFFFF
        step -= 0x100000000 if step >= 0x80000000 else 0
        stated_ns = utc_ns + step * 1_000_000_000 // self._hz - (time.time_ns() - time.monotonic_ns())
        return stated_ns if -_CLOCK_BEHIND_NS <= stated_ns - fitted_ns <= _CLOCK_AHEAD_NS else fitted_ns

    def _stream_of(self, data: bytes) -> Any:
        """A container around the first picture, for whoever reads its headers."""
        parameters = self._context.extradata or b""
        try:
            return self._av.open(io.BytesIO(parameters + data), format=self._codec).streams.video[0]
        except (self._av.FFmpegError, IndexError):
            return None
