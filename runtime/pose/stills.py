"""Stills that carry their own pose: Exif GPS and DJI's XMP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overflight.runtime.errors import SourceError
from overflight.runtime.pose.camera_model import CameraModel, angles_of_f35
from overflight.runtime.pose.exif import Value, read_tags
from overflight.runtime.pose.fields import number, position, utc_ns
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, Attitude, Pose

if TYPE_CHECKING:
    from pathlib import Path

_TAKEN, _TAKEN_OFFSET, _F35, _WIDTH, _HEIGHT = 0x9003, 0x9011, 0xA405, 0xA002, 0xA003
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT, _TIME, _DATE, _H_ACC = 1, 2, 3, 4, 5, 6, 7, 0x1D, 0x1F
RTK_FIXED = "50"
RTK_H_ACC_M = 0.05


def read_still(path: Path) -> Pose:
    """Read the pose of a JPEG or TIFF. ``utc_ns`` is 0 where the file gives only a local time of unknown zone.

    Raises SourceError where there is no position.
    """
    picture, gps, dji = read_tags(path)
    try:
        lat_deg, lon_deg = _position(gps, dji)
        height = dji.get("RelativeAltitude")
        return Pose(
            utc_ns=_utc_ns(picture, gps, dji),
            lat_deg=lat_deg,
            lon_deg=lon_deg,
            height_m=None if height is None else number(height),
            altitude_m=_altitude_m(gps, dji),
            vehicle=_attitude(dji, "Flight"),
            gimbal=_attitude(dji, "Gimbal"),
            h_acc_m=_h_acc_m(gps, dji),
        )
    except ValueError as error:
        raise SourceError(f"{path}: {error}; expected Exif GPS or DJI XMP, or give a track with --pose") from error


def read_camera(path: Path, size: tuple[int, int]) -> CameraModel | None:
    """Return the camera of a still of ``size`` (width, height) pixels by its Exif, or None where that has no lens."""
    f35 = read_tags(path)[0].get(_F35)
    if not isinstance(f35, tuple) or not f35[0] > 0:
        return None
    width, height = size
    hfov_deg, vfov_deg = angles_of_f35(f35[0], width / height)
    return CameraModel(hfov_deg, vfov_deg)


def _position(gps: dict[int, Value], dji: dict[str, str]) -> tuple[float, float]:
    lon = dji.get("GpsLongitude", dji.get("GpsLongtitude"))
    if "GpsLatitude" in dji and lon is not None:
        return position(number(dji["GpsLatitude"]), number(lon))
    lat_deg, lon_deg = _degrees(gps, _LAT, _LAT_REF, "S"), _degrees(gps, _LON, _LON_REF, "W")
    if lat_deg is None or lon_deg is None:
        raise ValueError("no position in this picture")
    return position(lat_deg, lon_deg)


def _degrees(gps: dict[int, Value], tag: int, ref_tag: int, negative: str) -> float | None:
    parts, ref = gps.get(tag), gps.get(ref_tag)
    if not isinstance(parts, tuple) or len(parts) != 3 or not isinstance(ref, str) or not ref:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    return -degrees if ref[0].upper() == negative else degrees


def _altitude_m(gps: dict[int, Value], dji: dict[str, str]) -> float | None:
    if "AbsoluteAltitude" in dji:
        return number(dji["AbsoluteAltitude"])
    altitude, below = gps.get(_ALT), gps.get(_ALT_REF)
    if not isinstance(altitude, tuple):
        return None
    return -altitude[0] if isinstance(below, tuple) and below[0] == 1.0 else altitude[0]


def _attitude(dji: dict[str, str], of: str) -> Attitude | None:
    """Read DJI's angles; a gimbal flipped past straight down is written with a roll of ±180°, which is kept."""
    angles = [dji.get(f"{of}{axis}Degree") for axis in ("Yaw", "Pitch", "Roll")]
    if angles[0] is None or angles[1] is None:
        return None
    return Attitude(number(angles[0]) % 360.0, number(angles[1]), number(angles[2] or "0"))


def _h_acc_m(gps: dict[int, Value], dji: dict[str, str]) -> float:
    if "RtkStdLat" in dji and "RtkStdLon" in dji:
        return math.hypot(number(dji["RtkStdLat"]), number(dji["RtkStdLon"]))
    if dji.get("RtkFlag", "").strip() == RTK_FIXED:
        return RTK_H_ACC_M
    stated = gps.get(_H_ACC)
    return stated[0] if isinstance(stated, tuple) else DEFAULT_H_ACC_M


def _utc_ns(picture: dict[int, Value], gps: dict[int, Value], dji: dict[str, str]) -> int:
    date, clock, taken = gps.get(_DATE), gps.get(_TIME), picture.get(_TAKEN)
    if "UTCAtExposure" in dji:
        return utc_ns(_iso(dji["UTCAtExposure"]))
    if isinstance(date, str) and isinstance(clock, tuple) and len(clock) == 3:
        return utc_ns(date.replace(":", "-") + "T00:00:00") + round((clock[0] * 3600 + clock[1] * 60 + clock[2]) * 1e9)
    zone = picture.get(_TAKEN_OFFSET)
    if isinstance(taken, str) and isinstance(zone, str):
        return utc_ns(_iso(taken) + zone)
    return 0


def _iso(text: str) -> str:
    day, _, clock = text.strip().partition(" ")
    return f"{day.replace(':', '-')}T{clock}" if clock else text
