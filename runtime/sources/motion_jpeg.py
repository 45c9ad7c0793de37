"""Cameras over HTTP: Motion JPEG however its pictures are parted, or single pictures that are asked for again."""

from __future__ import annotations

import time
import urllib.error
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.sources import jpeg, network
from overflight.runtime.sources.image import decode_still
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.snapshots import Snapshots, refusal, web_page

if TYPE_CHECKING:
    from collections.abc import Iterator

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_CHUNK = 1 << 16
_MOST_BYTES = 64 << 20  # of a picture
_MOTION = ("multipart/", "image/", "video/x-motion-jpeg", "video/x-mjpeg", "video/mjpeg")


class HttpVideo(LiveVideo):
    """``http://CAMERA/…``: what it answers decides. What is no Motion JPEG and no picture is left to FFmpeg.

    FFmpeg's reader takes only one of the ways in which cameras part their pictures.
    """

    def frames(self) -> Iterator[Frame]:
        """Connect and read until the stream ends. Raises SourceError when it is refused or stops."""
        try:
            answer = self._ask()
        except urllib.error.HTTPError as error:
            raise SourceError(refusal(self.name, error)) from error
        except (OSError, ValueError):  # FFmpeg is asked, and its words are the usual ones
            yield from super().frames()
            return
        kind = str(answer.headers.get_content_type())
        single = kind.startswith("image/")
        if not kind.startswith(_MOTION) or (single and answer.headers["Content-Length"]):
            answer.close()
            yield from Snapshots(self._address, self.name).frames() if single else super().frames()
            return
        number = 0
        with answer:
            for raw, arrived_ns in self._jpegs(answer):
                try:
                    pixels = decode_still(raw, self.name)
                except SourceError:
                    self._dropped["damaged"] += 1
                else:
                    utc_ns = time.time_ns() - (time.monotonic_ns() - arrived_ns)
                    yield Frame(pixels, number, arrived_ns, utc_ns, order="bgr")
                number += 1
        if single and number == 1:
            yield from Snapshots(self._address, self.name).frames()
        raise SourceError(f"{self.name}: stopped after {number} frames: the sender ended the stream")

    def _ask(self) -> Any:
        url, opener = web_page(self._address)
        return opener.open(url, timeout=network.OPEN_S)

    def _jpegs(self, answer: Any) -> Iterator[tuple[bytes, int]]:
        """Yield each picture with the time at which its first bytes arrived. Raises SourceError after a silence."""
        waiting, arrived_ns = b"", 0
        while True:
            try:
                chunk = answer.read1(_CHUNK)
            except OSError as error:
                raise SourceError(f"{self.name}: silent for {network.OPEN_S:g} s; check the link") from error
            if not chunk:
                return
            self.heard_ns = time.monotonic_ns()
            begins = _START not in waiting
            waiting += chunk
            if begins:
                arrived_ns = self.heard_ns
            while (found := _first(waiting)) is not None:
                start, end = found
                yield waiting[start:end], arrived_ns
                waiting, arrived_ns = waiting[end:], self.heard_ns
            if _START not in waiting:
                waiting = waiting[-len(_START) :]
            elif len(waiting) > _MOST_BYTES:
                raise SourceError(f"{self.name}: a picture of more than {_MOST_BYTES >> 20} MB; check the address")


def _first(waiting: bytes) -> tuple[int, int] | None:
    """Return where the first whole picture begins and ends, by its own marks: borders and lengths may be wrong."""
    start = waiting.find(_START)
    if start < 0 or _END not in waiting[start:]:
        return None
    try:
        length = jpeg.end_of_picture(waiting[start:])
    except ValueError:
        length = waiting.index(_END, start) + 2 - start
    return None if length is None else (start, start + length)
