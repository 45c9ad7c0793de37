"""Stills that carry their own pose: Exif, and the XMP of DJI, Autel, Parrot, Skydio, senseFly and Pix4D's scheme."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overflight.runtime.errors import SourceError
from overflight.runtime.geodesy import distance_m
from overflight.runtime.pose.attitude_tags import camera_attitude, vehicle_attitude
from overflight.runtime.pose.camera_model import CameraModel, angles_of_f35, hfov_of
from overflight.runtime.pose.exif import StillTags, Tags, Value, read_tags
from overflight.runtime.pose.fields import position, utc_ns
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, HeightAbove, Pose
from overflight.runtime.pose.tag_values import TagValues

if TYPE_CHECKING:
    from pathlib import Path

_TAKEN, _TAKEN_OFFSET, _TAKEN_FRACTION = 0x9003, 0x9011, 0x9291
_F35, _WIDTH, _HEIGHT, _ZOOM = 0xA405, 0xA002, 0xA003, 0xA404
_FOCAL, _PLANE_X, _PLANE_UNIT = 0x920A, 0xA20E, 0xA210
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT, _TIME, _STATUS, _DATE, _H_ACC = 1, 2, 3, 4, 5, 6, 7, 9, 0x1D, 0x1F
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of a focal plane's resolution
_FIRST_YEAR_NS = 631_152_000_000_000_000  # 1990: before it no receiver put a time into a picture
_TWO_DAYS_NS, _ROLLOVER_NS = 172_800_000_000_000, 1024 * 604_800_000_000_000
_DAY = re.compile(r"\d{4}[:/.-]?\d\d[:/.-]?\d\d|\d{4}-?W?\d\d-?\d")
_HIGHEST_M = 100_000.0  # 0xFFFFFFFF is written where the height is not known
RTK_FIXED = "50"
RTK_H_ACC_M = 0.05
APART_M = 100.0  # two positions of one picture further apart than this are worth a word


@dataclass(frozen=True)
class Still:
    """What a still says about itself: its pose, its lens, and in ``notes`` each value that could not be used."""

    pose: Pose
    lens: Lens
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Lens:
    """A lens as tags describe it: a 35-mm equivalent, or a focal length in pixels of a picture ``width_px`` wide."""

    f35_mm: float | None = None
    focal_px: float | None = None
    width_px: float | None = None

    def camera(self, size: tuple[int, int]) -> CameraModel | None:
        """Return the camera for a picture of ``size`` (width, height) pixels; None where the lens is not known."""
        if self.f35_mm is not None:
            return CameraModel(*angles_of_f35(self.f35_mm, size[0] / size[1]))
        if self.focal_px is not None and self.width_px is not None:
            return CameraModel(hfov_of(self.focal_px, self.width_px))
        return None


def read_still(path: Path) -> Still:
    """Read what a still says about where it was taken. One value that cannot be used costs that value alone.

    ``pose.utc_ns`` is 0 where the file gives no time, or a local time of unknown zone. Raises SourceError where there
    is no position, with the reason.
    """
    tags = read_tags(path)
    values = TagValues(tags.xmp)
    lat_deg, lon_deg = _position(tags, values, path)
    height_m, above = _height(values)
    vehicle = vehicle_attitude(values)
    pose = Pose(
        utc_ns=_utc_ns(tags, values),
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        height_m=height_m,
        height_above=above,
        altitude_m=_altitude_m(tags.gps, values),
        vehicle=vehicle,
        gimbal=camera_attitude(values, vehicle, _text(tags.picture, 0x10F) + values.text("tiff:Make")),
        north_mps=values.number("dji:FlightXSpeed"),
        east_mps=values.number("dji:FlightYSpeed"),
        h_acc_m=_h_acc_m(tags.gps, values),
        zoom=_zoom(tags.picture, values),
    )
    return Still(pose, _lens(tags.picture, values), tuple(f"{path.name}: {note}" for note in values.notes))


def _position(tags: StillTags, values: TagValues, path: Path) -> tuple[float, float]:
    """Return the maker's position, else that of Exif, else that of XMP's copy of Exif."""
    found: list[tuple[float, float]] = []
    for name, pair in (
        ("XMP", values.pair(("dji", "autel", "skydio"))),
        ("Exif", (_degrees(tags.gps, _LAT, _LAT_REF, values), _degrees(tags.gps, _LON, _LON_REF, values))),
        ("XMP's Exif", (values.degrees("exif:GPSLatitude"), values.degrees("exif:GPSLongitude"))),
    ):
        if pair[0] is None or pair[1] is None:
            continue
        try:
            found.append(position(pair[0], pair[1]))
        except ValueError as error:
            values.note(f"position in its {name}", str(error))
    if not found:
        why = "; ".join(values.notes) or "no position in this picture"
        raise SourceError(f"{path}: {why}; expected Exif GPS or the maker's XMP, or give a track with --pose")
    if _text(tags.gps, _STATUS).upper() == "V":
        values.note("GPSStatus", "V: the receiver had no fix when the picture was taken; its position may be old")
    apart_m = max((distance_m(found[0], other) for other in found[1:]), default=0.0)
    if apart_m > APART_M:
        values.note("position", f"its XMP and Exif are {apart_m:.0f} m apart; the XMP is used")
    return found[0]


def _degrees(gps: Tags, tag: int, ref_tag: int, values: TagValues) -> float | None:
    parts, ref = gps.get(tag), _text(gps, ref_tag)[:1].upper()
    name = "GPSLatitude" if tag == _LAT else "GPSLongitude"
    if parts is None:
        return None
    if isinstance(parts, str) or not 1 <= len(parts) <= 3 or not all(map(math.isfinite, parts)):
        values.note(name, "is not degrees, minutes and seconds")
        return None
    if ref not in ({"N", "S"} if tag == _LAT else {"E", "W"}):
        values.note(f"{name}Ref", f"{ref!r} names no hemisphere")
        return None
    degrees = sum(abs(part) / unit for part, unit in zip(parts, (1, 60, 3600), strict=False))
    return -degrees if ref in {"S", "W"} else degrees


def _altitude_m(gps: Tags, values: TagValues) -> float | None:
    stated = values.first("dji:AbsoluteAltitude", "autel:AbsoluteAltitude", "skydio:AbsoluteAltitude")
    if stated is not None:
        return stated
    altitude, below = gps.get(_ALT), gps.get(_ALT_REF)
    if isinstance(altitude, tuple) and abs(altitude[0]) > _HIGHEST_M:
        values.note("GPSAltitude", f"{altitude[0]:g} m is no height of an aircraft")
        altitude = None
    if not isinstance(altitude, tuple) or not math.isfinite(altitude[0]):
        copied = values.number("exif:GPSAltitude")
        return None if copied is None else -copied if values.text("exif:GPSAltitudeRef") in {"1", "3"} else copied
    return -abs(altitude[0]) if below in {(1.0,), (3.0,), "\x01", "1"} else altitude[0]


def _height(values: TagValues) -> tuple[float | None, HeightAbove]:
    takeoff_m = values.first(
        "dji:RelativeAltitude", "autel:RelativeAltitude", "skydio:RelativeAltitude", "parrot:RelativeAltitude"
    )
    above_ground_m = values.number("camera:AboveGroundAltitude")
    return (takeoff_m, "takeoff") if above_ground_m is None else (above_ground_m, "ground")


def _h_acc_m(gps: Tags, values: TagValues) -> float:
    north, east = values.number("dji:RtkStdLat"), values.number("dji:RtkStdLon")
    if north and east and north > 0 and east > 0:  # zeros are written where there is no RTK
        return math.hypot(north, east)
    if values.text("dji:RtkFlag") == RTK_FIXED:
        return RTK_H_ACC_M
    stated = values.number("camera:GPSXYAccuracy") or _first(gps, _H_ACC)
    return stated if stated is not None and stated > 0 else DEFAULT_H_ACC_M


def _utc_ns(tags: StillTags, values: TagValues) -> int:
    """Return the first time that can be read: the maker's, the receiver's, the camera's with its zone."""
    fraction, zone = _text(tags.picture, _TAKEN_FRACTION), _text(tags.picture, _TAKEN_OFFSET)
    taken, day = _text(tags.picture, _TAKEN), _text(tags.gps, _DATE)
    for name, text in (
        ("UTCAtExposure", values.text("dji:UTCAtExposure")),
        ("GPSDateStamp and GPSTimeStamp", _join(day, _clock(tags.gps.get(_TIME)), "T")),
        ("DateTimeOriginal", _join(taken, zone, "." + fraction if fraction.isdigit() else "")),
    ):
        if not text:
            continue
        try:
            time_ns = utc_ns(_iso(text))
        except (ValueError, OverflowError):
            values.note(name, f"{text!r} is not a time")
            continue
        if time_ns >= _FIRST_YEAR_NS and not _rolled_over(name, time_ns, taken, values):
            return time_ns
    return 0


def _rolled_over(name: str, time_ns: int, taken: str, values: TagValues) -> bool:
    """Say whether a receiver's time is a multiple of 1,024 weeks before the camera's: its week count overflowed."""
    try:
        behind_ns = utc_ns(_iso(taken)) - time_ns
    except (ValueError, OverflowError):
        return False
    weeks = round(behind_ns / _ROLLOVER_NS)
    rolled = weeks >= 1 and abs(behind_ns - weeks * _ROLLOVER_NS) < _TWO_DAYS_NS
    if rolled:
        values.note(
            name, f"is {weeks * 1024} weeks before the camera's {taken!r}: the receiver's week count overflowed"
        )
    return rolled


def _join(first: str, second: str, between: str) -> str:
    return f"{first}{between}{second}" if first and second else ""


def _clock(parts: Value | None) -> str:
    """Write the receiver's hours, minutes and seconds as a time of day; odd ones as they are, to be refused."""
    if isinstance(parts, str):  # not as the standard has it, and clear
        return parts
    if parts is None or len(parts) != 3:
        return ""
    hours, minutes, seconds = parts
    if not all(map(math.isfinite, parts)) or max(parts) >= 100 or hours % 1 or minutes % 1:
        return f"{hours:g}:{minutes:g}:{seconds:g}"
    return f"{int(hours):02}:{int(minutes):02}:{seconds:012.9f}"


def _iso(text: str) -> str:
    """Turn what stands between a date's numbers in Exif, colons above all, into hyphens. Raises ValueError.

    A month or day of one digit is no date (Exif 2.32, 4.6.5 and 4.6.6): which of them lost a digit is not known.
    """
    day, mark, clock = text.strip().replace("T", " ", 1).partition(" ")
    if mark and not _DAY.fullmatch(day):
        raise ValueError(f"{text!r} is not a time")
    return f"{re.sub('[:/.]', '-', day)}T{clock.strip()}" if mark else text.strip()


def _zoom(picture: Tags, values: TagValues) -> float:
    """Return the digital zoom; 0 is written where there is none (Exif 2.32, DigitalZoomRatio)."""
    zoom = _first(picture, _ZOOM)
    if zoom is None:
        zoom = values.number("exif:DigitalZoomRatio")
    if zoom is None or zoom == 0.0 or not math.isfinite(zoom):
        return 1.0
    if not 1.0 <= zoom <= 1000.0:
        values.note("DigitalZoomRatio", f"{zoom:g} is no zoom")
        return 1.0
    return zoom


def _lens(picture: Tags, values: TagValues) -> Lens:
    f35_mm, width_px = _first(picture, _F35), _first(picture, _WIDTH) or _first(picture, 0x100)
    if f35_mm is None:
        f35_mm = values.number("exif:FocalLengthIn35mmFilm")
    if f35_mm is not None and f35_mm > 0:
        return Lens(f35_mm=f35_mm)
    focal_px = values.number("dji:CalibratedFocalLength")
    if focal_px is None:
        focal_mm, per_unit = _first(picture, _FOCAL), _first(picture, _PLANE_X)
        unit_mm = _MM_PER_UNIT.get(int(_first(picture, _PLANE_UNIT) or 2))
        if focal_mm and per_unit and unit_mm:
            focal_px = focal_mm * per_unit / unit_mm
    if focal_px is None or not focal_px > 0 or not width_px or not 0.01 < focal_px / width_px < 1000:
        return Lens()
    return Lens(focal_px=focal_px, width_px=width_px)


def _first(tags: Tags, tag: int) -> float | None:
    value = tags.get(tag)
    return value[0] if isinstance(value, tuple) and math.isfinite(value[0]) else None


def _text(tags: Tags, tag: int) -> str:
    value = tags.get(tag)
    return value.strip() if isinstance(value, str) else ""
