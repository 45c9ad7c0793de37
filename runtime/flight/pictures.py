"""Small pictures of a flight: which frames are worth one, and how it is made."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal

import numpy as np

from overflight.runtime.errors import MissingError
from overflight.runtime.planes import Planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.runtime.event import Event
    from overflight.runtime.frame import Frame
    from overflight.runtime.observe import FrameResult

Reason = Literal["label", "event", "surest", "novel", "interval"]

WIDTH_PX = 320
QUALITY = 45  # about 10 kB at 320 pixels
EVERY_S = 5.0  # there is never less than one picture in so many seconds of the source
LEAST_S = 1.0  # nor more than one in so many, except for events
_SURER = 0.05  # a label's score must rise by so much for another picture of it
_KEPT = 64  # novelty is the distance to the embeddings of so many latest pictures
_NOVEL_SIGMAS = 3.0
_FEWEST = 30  # frames before novelty means anything


class PictureChooser:
    """Chooses the frames of one flight that get a picture: by content and the source's own time, never by the clock.

    Reasons: the best label changed, an event began or ended, a label is surer than ever before, the frame differs from
    all recent pictures, or ``EVERY_S`` have passed. Stills without a time get a picture each.
    """

    def __init__(self) -> None:
        self._label: str | None = None
        self._best: dict[str, float] = {}
        self._last_ns: int | None = None
        self._pictured: deque[NDArray[np.float32]] = deque(maxlen=_KEPT)
        self._novelty = _Spread()

    def reasons(self, result: FrameResult, events: Sequence[Event]) -> tuple[Reason, ...]:
        """Return why this frame gets a picture; empty if it does not."""
        observation = result.observation
        since_s = self._since_s(observation.moment_ns)
        novel = self._is_novel(result.embedding)
        found: list[Reason] = ["event"] if any(event.type != "change" for event in events) else []
        if since_s >= LEAST_S:
            if observation.label != self._label:
                found.append("label")
            if self._is_surest(result):
                found.append("surest")
            if novel:
                found.append("novel")
            if since_s >= EVERY_S:
                found.append("interval")
            self._label = observation.label
        if found:
            self._last_ns = observation.moment_ns
            self._pictured.append(np.array(result.embedding, np.float32))
        return tuple(found)

    def _since_s(self, now_ns: int | None) -> float:
        if now_ns is None or self._last_ns is None:
            return math.inf
        return abs(now_ns - self._last_ns) / 1e9

    def _is_surest(self, result: FrameResult) -> bool:
        risen = {
            label: score
            for label, score in result.decision.present.items()
            if score >= self._best.get(label, -math.inf) + _SURER
        }
        self._best.update(risen)
        return bool(risen)

    def _is_novel(self, embedding: NDArray[np.float32]) -> bool:
        if not self._pictured:
            return False
        novelty = 1 - max(float(one @ embedding) for one in self._pictured)
        return self._novelty.exceeds(novelty)


class _Spread:
    """Mean and standard deviation of what was seen so far (Welford)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def exceeds(self, value: float) -> bool:
        """Whether a value is far above all before; takes it into account afterwards."""
        deviation = math.sqrt(self._squares / self._count) if self._count else 0.0
        far = self._count >= _FEWEST and value > self._mean + _NOVEL_SIGMAS * deviation + 1e-3
        self._count += 1
        delta = value - self._mean
        self._mean += delta / self._count
        self._squares += delta * (value - self._mean)
        return far


def small_jpeg(frame: Frame, width_px: int = WIDTH_PX, quality: int = QUALITY) -> bytes:
    """Return a frame as a JPEG of at most ``width_px`` pixels across; empty where OpenCV is missing or fails."""
    from overflight.runtime.sources.image import opencv

    try:
        cv2 = opencv()
    except MissingError:
        return b""
    width, height = frame.display_size
    size = (min(width, width_px), max(1, round(height * min(1.0, width_px / width))))
    if isinstance(frame.picture, Planes):
        small = frame.picture.rgb(*size)
    else:
        small = cv2.resize(frame.picture, size, interpolation=cv2.INTER_AREA)
    if frame.order == "rgb":
        small = np.ascontiguousarray(small[:, :, ::-1])
    made, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(jpeg) if made else b""
