"""Where poses come from: one address for each kind of telemetry, one question for every frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl

import msgspec

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.pose.fields import number, utc_ns, whole
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.stills import Still, read_still

if TYPE_CHECKING:
    from overflight.runtime.frame import Frame
    from overflight.runtime.pose.autopilot import Autopilot
    from overflight.runtime.pose.camera_model import CameraModel
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.pose.track import PoseTrack

STILLS, STREAM = "stills", "stream"
NO_METADATA_S = 5.0
ON_THE_GROUND_M = 2.0  # a barometer's noise before take-off
LIVE = ("udpin:", "udpout:", "udp:", "tcp:", "tcpin:", "/dev/", "mavlink:")


class Poses(Protocol):
    """Answers where the camera was when a frame was taken."""

    def of(self, frame: Frame) -> Pose | None:
        """Return the pose of a frame, or None where none is known; never raises for a frame."""
        ...

    def camera(self, frame: Frame) -> CameraModel | None:
        """Return the camera of the frame asked for last, where the telemetry describes it."""
        ...

    @property
    def takeoff(self) -> tuple[float, float] | None:
        """Latitude and longitude of the take-off point, where the telemetry begins there."""
        ...

    @property
    def refused(self) -> tuple[str, ...]:
        """What could not be used, one line each."""
        ...


class StillPoses:
    """Poses that stills carry themselves; ``frame.name`` names the file, under ``directory`` if relative."""

    takeoff = None  # stills begin in the air

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._refused = Refusals(most=None)
        self._still: Still | None = None

    @property
    def refused(self) -> tuple[str, ...]:
        """Stills without a position, and values of the others that could not be used, one line each."""
        return self._refused.lines

    def of(self, frame: Frame) -> Pose | None:
        """Read the pose of the file that the frame came from."""
        self._still = None
        try:
            if frame.name is None:
                raise SourceError(f"frame {frame.number}: not a still, so it carries no pose; give a track with --pose")
            self._still = read_still(self._directory / frame.name)
        except (SourceError, OSError) as error:
            self._refused.add(str(error))
            return None
        for note in self._still.notes:
            self._refused.add(note)
        pose = self._still.pose
        return pose if pose.utc_ns else msgspec.structs.replace(pose, utc_ns=frame.captured_utc_ns or 0)

    def camera(self, frame: Frame) -> CameraModel | None:
        """Return the still's own lens."""
        return None if self._still is None else self._still.lens.camera(frame.display_size)


class TrackPoses:
    """Poses of a track, asked for on its own clock.

    A track in UTC and a recorded video meet where ``start_utc_ns`` says when the recording began; without it the
    frame's wall clock counts. ``shift_ns`` is added to the frame's time: a camera's latency is negative.
    """

    def __init__(self, track: PoseTrack, *, start_utc_ns: int | None = None, shift_ns: int = 0) -> None:
        self.track = track
        self._start_utc_ns = start_utc_ns
        self._shift_ns = shift_ns
        self._refused: list[str] = []

    @property
    def refused(self) -> tuple[str, ...]:
        """What the reader could not use, and whether the frames had no time that fits."""
        return (*self.track.refused, *self._refused)

    @property
    def takeoff(self) -> tuple[float, float] | None:
        """The track's first position, where that is on the ground."""
        first = self.track.first
        if first is None or first.height_m is None or first.height_above != "takeoff":
            return None
        return (first.lat_deg, first.lon_deg) if abs(first.height_m) <= ON_THE_GROUND_M else None

    def of(self, frame: Frame) -> Pose | None:
        """Interpolate the track at the frame's capture."""
        t_ns = self._time_ns(frame)
        if t_ns is None:
            if not self._refused:
                self._refused.append(
                    f"the telemetry runs on the {self.track.clock} clock, which these frames do not tell"
                )
            return None
        pose = self.track.at(t_ns + self._shift_ns)
        wall_ns = t_ns + self._shift_ns if self.track.clock == "utc" else frame.captured_utc_ns or 0
        return pose and msgspec.structs.replace(pose, utc_ns=pose.utc_ns or wall_ns)

    def camera(self, frame: Frame) -> CameraModel | None:
        """Return the camera that the track describes at the frame's capture, if it does."""
        t_ns = self._time_ns(frame)
        return None if t_ns is None else self.track.camera_at(t_ns + self._shift_ns)

    def _time_ns(self, frame: Frame) -> int | None:
        match self.track.clock:
            case "monotonic":
                return frame.captured_ns
            case "utc" if self._start_utc_ns is not None and frame.media_ns is not None:
                return self._start_utc_ns + frame.media_ns
            case "utc":
                return frame.captured_utc_ns
            case "media":
                return frame.media_ns


class StreamPoses:
    """Poses that a live stream carries itself, as MISB KLV beside its pictures."""

    takeoff = None  # the stream began in the air, or is joined there

    def __init__(self) -> None:
        self._begun_ns: int | None = None
        self._unknown = False

    @property
    def refused(self) -> tuple[str, ...]:
        """That the stream has said nothing for long."""
        silent = f"no position in the stream for {NO_METADATA_S:g} s; expected MISB KLV in a transport stream"
        return (silent,) if self._unknown else ()

    def of(self, frame: Frame) -> Pose | None:
        """Return the pose that the stream gives a frame."""
        if frame.pose is None:
            self._begun_ns = self._begun_ns or frame.captured_ns
            self._unknown |= frame.captured_ns - self._begun_ns > NO_METADATA_S * 1e9
            return None
        return msgspec.structs.replace(frame.pose, utc_ns=frame.pose.utc_ns or frame.captured_utc_ns or 0)

    def camera(self, frame: Frame) -> CameraModel | None:
        """Return the camera that the stream describes."""
        return frame.camera


def open_poses(uri: str, *, directory: Path | None = None, vehicle: Autopilot | None = None) -> Poses:
    """Open telemetry by its address.

    ``stills`` (Exif and XMP of the frames' own files, under ``directory``); ``stream`` (MISB KLV of a live transport
    stream); a file ``.srt``, ``.csv``, ``.gpx``,
    ``.mp4`` (GoPro), ``.ts`` (MISB KLV), ``.tlog``, ``.bin``, ``.ulg``, each with ``?start=ISO-TIME`` and
    ``?shift_s=SECONDS``, a ``.tlog`` of several aircraft with ``?system=NUMBER``; or a live MAVLink address
    (``udpin:0.0.0.0:14550``), whose ``vehicle`` may be open already. Raises UsageError, MissingError or SourceError.
    """
    if uri == STILLS:
        return StillPoses(directory or Path())
    if uri == STREAM:
        return StreamPoses()
    if uri.startswith(LIVE):
        from overflight.runtime.pose.autopilot import Address, Autopilot

        return TrackPoses((vehicle or Autopilot(Address.parse(uri))).telemetry.track)
    name, _, query = uri.partition("?")
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))  # a time's offset keeps its plus
    if set(options) - {"start", "shift_s", "system"}:
        raise UsageError(f"--pose {uri}: expected FILE?start=2026-05-01T10:00:00Z&shift_s=-0.2&system=1")
    try:
        start_utc_ns = utc_ns(options["start"]) if "start" in options else None
        shift_ns = round(number(options.get("shift_s", "0")) * 1e9)
        system = whole(options["system"]) if "system" in options else None
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--pose {uri}: {error}; expected start=ISO-TIME, shift_s=SECONDS, system=NUMBER") from error
    if system is not None and not name.lower().endswith(".tlog"):
        raise UsageError(f"--pose {uri}: system= chooses an aircraft of a .tlog; leave it out for this file")
    return TrackPoses(read_track(Path(name), system), start_utc_ns=start_utc_ns, shift_ns=shift_ns)


def read_track(path: Path, system: int | None = None) -> PoseTrack:
    """Read a telemetry file by the kind that its name ends in; ``system`` is the aircraft of a ``.tlog``."""
    try:
        match path.suffix.lower():
            case ".srt":
                from overflight.runtime.pose.srt import read_srt as read
            case ".csv":
                from overflight.runtime.pose.table import read_csv as read
            case ".gpx":
                from overflight.runtime.pose.gpx import read_gpx as read
            case ".mp4" | ".mov" | ".360":
                from overflight.runtime.pose.gpmf import read_gpmf as read
            case ".ts" | ".m2ts" | ".mts" | ".mpg" | ".mpeg" | ".klv":
                from overflight.runtime.pose.klv import read_klv as read
            case ".tlog":
                from overflight.runtime.pose.tlog import read_tlog

                return read_tlog(path, system)
            case ".ulg":
                from overflight.runtime.pose.ulog import read_ulog as read
            case ".bin" | ".log":
                from overflight.runtime.pose.dataflash import read_dataflash as read
            case other:
                raise UsageError(
                    f"--pose {path}: {other or 'no ending'}; expected .srt, .csv, .gpx, .mp4, .ts, .tlog, .bin or .ulg"
                )
        return read(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a telemetry file with --pose") from error
