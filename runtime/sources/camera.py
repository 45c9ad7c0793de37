"""Cameras under /dev through OpenCV and V4L2."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from collections.abc import Iterator


class Camera:
    """A video device: frames until it fails; the caller opens it again.

    ``device`` is looked up anew at each opening: numbers change when a camera is plugged in again.
    """

    live = True
    count = None

    def __init__(self, device: str, name: str) -> None:
        self.name = name
        self._device = device
        self._capture: Any = None

    def frames(self) -> Iterator[Frame]:
        """Open and read until the device stops. Raises SourceError when it cannot be opened or stops."""
        cv2 = opencv()
        self.close()
        number = re.fullmatch(r"/dev/video(\d+)", str(Path(self._device).resolve()))
        if number is None or not Path(self._device).exists():
            raise SourceError(f"{self.name}: no such device; check the cable, and ls -l {self._device}")
        self._capture = capture = cv2.VideoCapture(int(number[1]), cv2.CAP_V4L2)
        if not capture.isOpened():
            self.close()
            raise SourceError(
                f"{self.name}: cannot be opened; check that no other program uses it, and your permissions"
            )
        count = 0
        while capture.grab():  # the stamp belongs to the arrival, so the conversion comes after it
            captured_ns, captured_utc_ns = time.monotonic_ns(), time.time_ns()
            read, pixels = capture.retrieve()
            if not read:
                break
            yield Frame(pixels, count, captured_ns, captured_utc_ns, order="bgr")
            count += 1
        self.close()
        raise SourceError(f"{self.name}: stopped after {count} frames; check the camera and its cable")

    def close(self) -> None:
        """Let the device go."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
