"""Video through OpenCV: recordings frame by frame, cameras and network streams as they come."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".m4v", ".ts", ".mts", ".mpg", ".mpeg", ".webm", ".h264", ".hevc"}
)
OPEN_TIMEOUT_MS = 5_000
READ_TIMEOUT_MS = 3_000
# No frame waits in the demultiplexer, packets known to be broken are not decoded into grey, RTSP does not lose packets
# on a radio link, and a burst on UDP costs packets, not the stream.
_LOW_LATENCY = "rtsp_transport;tcp|fflags;nobuffer+discardcorrupt|flags;low_delay|overrun_nonfatal;1"
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OPENING = threading.Lock()
_COUNT_TOLERANCE = 0.02  # containers miscount by an edit list or a trailing B-frame; a cut file by far more


class VideoFile:
    """Every frame of a recording, in order. ``count`` is what the container says, None where it does not."""

    live = False

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self.name = str(path)
        if not path.is_file():
            raise SourceError(f"{path}: no such file; check the path")
        if not path.stat().st_size:
            raise SourceError(f"{path}: an empty file; record or copy it again")
        self._capture: Any = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(
                f"{path}: OpenCV cannot open it as a video (cut off before its index, or not a video); "
                "copy it again, or repair it with: ffmpeg -i FILE -c copy NEW.mkv"
            )
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 else None
        self._position = cv2.CAP_PROP_POS_MSEC

    def frames(self) -> Iterator[Frame]:
        """Decode frame by frame. Raises SourceError at the end of a recording that stops before it should."""
        number = 0
        while True:
            read, pixels = self._capture.read()
            if not read:
                break
            media_ns = int(self._capture.get(self._position) * 1e6)
            yield Frame(pixels, number, time.monotonic_ns(), order="bgr", media_ns=media_ns)
            number += 1
        if not number:
            raise SourceError(
                f"{self.name}: opened, but holds no frame that OpenCV can decode; record or copy it again"
            )
        if self.count is not None and number < self.count * (1 - _COUNT_TOLERANCE) - 1:
            raise SourceError(
                f"{self.name}: ended after {number} of {self.count} frames, the recording is cut off or damaged; "
                "what was decoded has been kept, copy the file again for the rest"
            )

    def close(self) -> None:
        """Let the decoder go."""
        self._capture.release()


class LiveVideo:
    """A camera or network stream through OpenCV: frames until it fails, which is the caller's to mend.

    ``address`` is a URL for FFmpeg or a device under /dev, looked up anew at each opening: numbers change when a camera
    is plugged in again.
    """

    live = True
    count = None

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self._address = address
        self._capture: Any = None

    def frames(self) -> Iterator[Frame]:
        """Open and read until the stream ends. Raises SourceError when it cannot be opened or stops."""
        cv2 = opencv()
        self.close()
        self._capture = capture = self._open(cv2)
        if not capture.isOpened():
            self.close()
            raise SourceError(f"{self.name}: cannot be opened; check the address, the cable and the permissions")
        number = 0
        while True:
            if not capture.grab():  # the stamp belongs to the arrival, so the conversion comes after it
                break
            captured_ns, captured_utc_ns = time.monotonic_ns(), time.time_ns()
            read, pixels = capture.retrieve()
            if not read:
                break
            yield Frame(pixels, number, captured_ns, captured_utc_ns, order="bgr")
            number += 1
        self.close()
        raise SourceError(f"{self.name}: stopped after {number} frames; check the camera and the link")

    def close(self) -> None:
        """Let the device go."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open(self, cv2: ModuleType) -> Any:
        if self._address.startswith("/dev/"):
            number = re.fullmatch(r"/dev/video(\d+)", str(Path(self._address).resolve()))
            if number is None:
                raise SourceError(f"{self.name}: no such device; check the cable, and ls -l {self._address}")
            return cv2.VideoCapture(int(number[1]), cv2.CAP_V4L2)
        parameters = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT_MS,
            cv2.CAP_PROP_N_THREADS: 1,  # decoding frames side by side costs the age of a frame for each thread more
        }
        with _low_latency():
            return cv2.VideoCapture(
                self._address, cv2.CAP_FFMPEG, [value for pair in parameters.items() for value in pair]
            )


@contextmanager
def _low_latency() -> Iterator[None]:
    """Hand FFmpeg its options, which OpenCV takes from the environment alone; whoever set them there knows better."""
    if _OPTIONS in os.environ:
        yield
        return
    with _OPENING:
        os.environ[_OPTIONS] = _LOW_LATENCY
        try:
            yield
        finally:
            os.environ.pop(_OPTIONS, None)  # a recording opened later must keep the order of its frames
