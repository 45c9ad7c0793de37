"""The words by which a source is named, and which reader each of them opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from overflight.runtime.errors import UsageError
from overflight.runtime.paths import printable
from overflight.runtime.redact import redact
from overflight.runtime.sources.camera import Camera
from overflight.runtime.sources.decoder import has_pyav
from overflight.runtime.sources.image import SUFFIXES as STILL_SUFFIXES
from overflight.runtime.sources.mosaic import Mosaic, View, is_mosaic
from overflight.runtime.sources.motion_jpeg import HttpVideo
from overflight.runtime.sources.network import LiveVideo
from overflight.runtime.sources.pipeline import Pipeline, gstreamer, has_gstreamer, network, recording, srt
from overflight.runtime.sources.recording import VideoFile
from overflight.runtime.sources.rtsp import RtspVideo
from overflight.runtime.sources.snapshots import Snapshots
from overflight.runtime.sources.stills import Stills
from overflight.runtime.sources.testcard import TestCard

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from overflight.runtime.frame import Frame

GRAMMAR = (
    "file.mp4, folder/, 'pattern*.jpg', mosaic.tif, /dev/video0, v4l2:///dev/v4l/by-id/NAME, csi://0, rtsp://…, "
    "udp://@:5600, rtp://@:5004, rtmp://0.0.0.0:1935/live/KEY?listen, srt://:9000?mode=listener, "
    "http://CAMERA/PICTURE.jpg, 'gst://PIPELINE', test://"
)
_NETWORK = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "http", "https"})
_DEVICE = re.compile(r"(?:/dev/)?video\d+|\d+|/dev/v4l/by-(?:id|path)/[^/]+")


class Source(Protocol):
    """Frames from somewhere. A live source loses what is not read in time; any other waits."""

    @property
    def name(self) -> str:
        """The source as it may be shown: without credentials."""

    @property
    def live(self) -> bool:
        """Whether frames come on their own time."""

    @property
    def count(self) -> int | None:
        """How many frames there will be, if that is known."""

    def frames(self) -> Iterator[Frame]:
        """Yield frames until there are no more, or raise SourceError."""

    def close(self) -> None:
        """Let go of what is held; safe to call twice."""


@runtime_checkable
class Lossy(Protocol):
    """A source that counts the pictures that it did not pass on, and notes what is unusual about it."""

    notes: list[str]

    def take_dropped(self) -> Counter[str]:
        """Return what was not passed on since the last call, by reason."""


def open_source(where: str) -> Source:
    """Open what ``where`` names, in jetson-utils' grammar. Raises UsageError for what names nothing."""
    scheme, _, rest = where.partition("://") if "://" in where else ("", "", where)
    match scheme.lower():
        case "test":
            return TestCard.parse(where)
        case "v4l2":
            return _device(rest, where)
        case "file":
            return _path(*_with_view(rest))
        case "gst" | "csi" | "rtp":
            return Pipeline(gstreamer(where), redact(where))
        case stream if stream in _NETWORK:
            return _stream(stream, where, redact(where))
        case "":
            return _device(where, where) if where.startswith(("/dev/video", "/dev/v4l/")) else _path(where)
        case unknown:
            raise UsageError(f"{redact(where)}: unknown kind of source {unknown!r}; expected one of: {GRAMMAR}")


def _stream(scheme: str, where: str, name: str) -> Source:
    """Choose the reader of a network stream. SRT is GStreamer's: PyAV's wheels are built without it."""
    if scheme == "srt":
        return Pipeline(srt(where), name, listens="mode=listener" in where)
    web = scheme in {"http", "https"}
    if web and ("#every=" in where or Path(urlsplit(where).path).suffix.lower() in STILL_SUFFIXES):
        return Snapshots(where, name)
    if not has_pyav():
        return Pipeline(network(where), name)
    if web:
        return HttpVideo(where, name)
    return RtspVideo(where, name) if scheme in {"rtsp", "rtsps"} else LiveVideo(where, name)


def _recording(path: Path) -> Source:
    """A board reads recordings with GStreamer: PyAV cannot be part of its archive."""
    if has_pyav() or not has_gstreamer():
        return VideoFile(path)
    return Pipeline(recording(path), str(path), live=False)


def _device(device: str, where: str) -> Source:
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"{where}: not a video device; expected /dev/videoN, or v4l2:///dev/v4l/by-id/NAME")
    return Camera(f"/dev/video{device}" if device.isdigit() else str(Path("/dev") / device), where)


def _with_view(where: str) -> tuple[str, View | None]:
    """Split ``mosaic.tif?window=512&bands=4,3,2&stretch=0,3000`` of a file:// address."""
    path, _, query = where.partition("?")
    if not query:
        return where, None
    try:
        if Path(path).suffix.lower() not in {".tif", ".tiff"}:
            raise ValueError("options are for mosaics alone")
        return path, View.parse(query)
    except ValueError as error:
        raise UsageError(
            f"{where}: {error}; expected file://mosaic.tif?window=1024&bands=3,2,1&stretch=0,3000"
        ) from error


def _path(where: str, view: View | None = None) -> Source:
    try:
        path = Path(where).expanduser()
    except RuntimeError:  # ~nobody: a user without a home
        path = Path(where)
    if path.is_dir():
        return Stills.of_folder(path)
    if path.is_file() and (view is not None or is_mosaic(path)):
        return Mosaic(path, view=view)
    if path.is_file() and path.suffix.lower() in STILL_SUFFIXES:
        return Stills(where, [path])
    if path.is_file():
        if printable(str(path)) != str(path):  # FFmpeg takes no other names
            raise UsageError(f"{printable(str(path))}: a video's path must be UTF-8; rename it")
        return _recording(path)
    if (stills := Stills.of_pattern(str(path))) is not None:
        return stills
    raise UsageError(f"{where}: no such file, folder or pattern; expected one of: {GRAMMAR}")
