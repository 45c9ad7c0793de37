"""Recordings through PyAV: every picture in order, at its own time, and whether the file is whole."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.sources import jpeg
from overflight.runtime.sources.decoder import Decoder, attentive, pyav
from overflight.runtime.sources.extent import missing_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = frozenset(
    {
        ".mp4", ".mov", ".mkv", ".avi", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".webm", ".flv", ".wmv",
        ".h264", ".264", ".hevc", ".265",
    }
)  # fmt: skip
_READ_S = 30.0  # a network drive that does not answer for so long is gone
_UNLIKELY_RATE = "13.37"  # offered for streams that state no rate; where it comes back, the rate was not stated
_RAW = frozenset({"h264", "hevc", "vvc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "dirac", "h263"})


class VideoFile:
    """Every whole picture of a recording, in order. ``count`` is what its container states, or about that many.

    ``notes`` says what was not as usual: no time stamps, pixels that are not square.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if not path.is_file():
            raise SourceError(f"{path}: no such file; check the path")
        if not path.stat().st_size:
            raise SourceError(f"{path}: an empty file; record or copy it again")
        self._path = path
        self._container: Any = _open(path)
        try:
            self._stream = _picture_stream(self._container, path)
        except SourceError:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self._context = attentive(self._stream.codec_context)
        self._dropped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.count = self._stream.frames or self._estimate() or self._counted()

    def frames(self) -> Iterator[Frame]:
        """Decode picture by picture. Raises SourceError at the end of a recording that stops before it should."""
        jpegs = self._context.name == "mjpeg"  # its decoder has one thread, and only its messages tell of damage
        decoder = Decoder(self._context, self._stream, listening=jpegs)
        clock = _MediaClock(self._stream, self._stated_interval_ns())
        number = whole = 0
        try:
            for packet in self._packets():
                damaged = packet.is_corrupt or (jpegs and jpeg.is_damaged(bytes(packet)))
                for decoded, picture in decoder.decode(packet, corrupt=damaged):
                    media_ns = clock.of(decoded)
                    if picture is not None:
                        whole += 1
                        yield Frame(picture, number, time.monotonic_ns(), media_ns=media_ns)
                    number += 1
                self._dropped["damaged"] += decoder.damaged
                decoder.damaged = 0
        finally:
            self._wait_for_threads()
        self._judge_end(whole, number)

    def take_dropped(self) -> Counter[str]:
        """Return what was not passed on since the last call, by reason."""
        dropped, self._dropped = +self._dropped, Counter()
        return dropped

    def close(self) -> None:
        """Let the file go."""
        self._wait_for_threads()
        self._container.close()

    def _wait_for_threads(self) -> None:
        """Wait until no thread of the decoder works.

        PyAV frees a decoder while it holds Python's lock. A thread that still works on a damaged picture needs that
        lock, to free what goes with the packet, and the two would wait for each other without end.
        """
        self._context.flush_buffers()

    def _packets(self) -> Iterator[Any]:
        av = pyav()
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                self.notes.append(f"reading stopped: {error.strerror}")
                return
            yield packet

    def _judge_end(self, whole: int, number: int) -> None:
        if not number:
            raise SourceError(f"{self.name}: holds no picture that can be decoded; record or copy it again")
        missing = missing_bytes(self._path)
        if missing:
            raise SourceError(
                f"{self.name}: ended after {number} pictures, the recording is cut off: at least {missing:,} bytes "
                "that its header states are missing; what was decoded is kept, copy the file again for the rest"
            )
        if self.notes and self.notes[-1].startswith("reading stopped"):
            raise SourceError(
                f"{self.name}: {self.notes[-1]} after {number} pictures; what was decoded is kept, copy the file again"
            )
        if not whole:
            raise SourceError(f"{self.name}: all {number} pictures are damaged; copy the file again")

    def _stated_interval_ns(self) -> int | None:
        """The time between two pictures of a stream without time stamps, None where it states none."""
        rate = self._stream.codec_context.framerate
        if self._container.format.name not in _RAW:
            return None
        if not rate or abs(float(rate) - float(_UNLIKELY_RATE)) < 1e-6:
            self.notes.append("a stream without time stamps that states no frame rate: its pictures have no time")
            return None
        return int(1e9 / rate)

    def _estimate(self) -> int | None:
        """About how many pictures there are, from the recording's length and rate."""
        stream, rate = self._stream, self._stream.average_rate
        if not rate:
            return None
        if stream.duration is not None:
            return round(float(stream.duration * stream.time_base * rate)) or None
        if self._container.duration is not None:
            start = max(0, self._container.start_time or 0)
            length = self._container.duration - (start if self._container.format.name.startswith("matroska") else 0)
            return round(length / 1e6 * float(rate)) or None
        return None

    def _counted(self) -> int | None:
        """Count the packets of a stream that states no length; nothing is decoded."""
        counted = 0
        with _open(self._path) as container, suppress(pyav().FFmpegError):  # damage is reported when it is decoded
            for packet in container.demux(_picture_stream(container, self._path)):
                counted += bool(packet.size)
        return counted or None


class _MediaClock:
    """The time of each picture since the first, which never goes back: recordings joined to one start again at zero."""

    def __init__(self, stream: Any, interval_ns: int | None) -> None:
        self._time_base = stream.time_base
        self._interval_ns = interval_ns
        rate = stream.average_rate
        self._usual_ns = int(1e9 / rate) if rate else 0
        self._shift_ns: int | None = None
        self._last_ns = -1
        self._number = 0

    def of(self, decoded: Any) -> int | None:
        """Return a picture's time; None for one that has none."""
        stamp = decoded.pts if decoded.pts is not None else decoded.dts
        self._number += 1
        if stamp is None:
            return None if self._interval_ns is None else (self._number - 1) * self._interval_ns
        now_ns = int(stamp * self._time_base * 1_000_000_000)
        if self._shift_ns is None:
            self._shift_ns = -now_ns
        if now_ns + self._shift_ns <= self._last_ns:
            self._shift_ns = self._last_ns + max(1, self._usual_ns) - now_ns
        self._last_ns = now_ns + self._shift_ns
        return self._last_ns


def _open(path: Path) -> Any:
    av = pyav()
    try:
        return av.open(
            str(path.resolve()),
            options={"framerate": _UNLIKELY_RATE},
            timeout=(_READ_S, _READ_S),
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"{path}: cannot be opened as a video ({reason}): cut off before its index, or not a video; "
            "copy it again, or repair it with: ffmpeg -i FILE -c copy NEW.mkv"
        ) from error


def _picture_stream(container: Any, path: Path) -> Any:
    """Choose the moving picture: covers and thumbnails are streams too; of several the default, then the largest."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    moving = [stream for stream in container.streams.video if not stream.disposition & still]
    if not moving:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{path}: holds no moving picture, only {kinds}; name the video itself")
    decodable = [stream for stream in moving if stream.codec_context is not None]
    if not decodable:
        raise SourceError(f"{path}: no decoder for its video here; convert it: ffmpeg -i FILE -c:v libx264 NEW.mp4")
    return max(
        decodable,
        key=lambda one: (
            bool(one.disposition & Disposition.default),
            one.codec_context.width * one.codec_context.height,
        ),
    )
