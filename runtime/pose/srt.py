"""DJI telemetry subtitles: every dialect of the ``.SRT`` file next to a DJI video.

What the dialects disagree about: ``F/… GPS (…)`` and ``HOME(…) GPS(…,16)`` put the longitude first (the third number
counts satellites), ``GPS(…,0.0M)`` of the Matrice 300 the latitude; ``longtitude`` is a spelling of the firmware;
``rel_alt`` and ``abs_alt`` share a bracket; a plain ``altitude`` says not above what. Times inside are local and name
no zone, so the track runs on the video's own clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.attitude_tags import measured
from overflight.runtime.pose.fields import number, position, rounding_m, utc_ns
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, Attitude, Pose
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.track import MAX_VALUES, PoseTrack

if TYPE_CHECKING:
    from pathlib import Path

# Every repetition is bounded: without a bound, a file of digits takes time that grows with its square.
_N = r"([+-]?\d{1,20}(?:\.\d{1,20})?)"
_TIMING = re.compile(r"(?<!\d)(\d{1,6}):(\d\d):(\d\d)[,.](\d{1,3})\s{0,8}-->")
_DATE = re.compile(r"(\d{4})[.-](\d{1,2})[.-](\d{1,2}) (\d\d:\d\d:\d\d)(?:[,.](\d{3}))?")
_LATITUDE = re.compile(rf"\[latitude ?: ?{_N}\]")
_LONGITUDE = re.compile(rf"\[longt?itude ?: ?{_N}\]")
_REL_ABS = re.compile(rf"\[rel_alt: ?{_N} abs_alt: ?{_N}\]")
_ALTITUDE = re.compile(rf"\[altitude ?: ?{_N}\]")
_GIMBAL = re.compile(rf"\[gb_yaw ?: ?{_N} gb_pitch ?: ?{_N} gb_roll ?: ?{_N}\]")
_GPS = re.compile(rf"GPS ?\({_N}, ?{_N}, ?{_N}(M?)\)")
_HEIGHT = re.compile(rf"(?:\bH |BAROMETER:|\bHb:){_N}")
_ZOOM = re.compile(rf"\[?dzoom(?:_ratio)? ?: ?{_N}")
_PRY = r"\(" + ", ".join([rf"{_N}°"] * 3) + r"\)"
_F_PRY, _G_PRY = re.compile(r"F\.PRY " + _PRY), re.compile(r"G\.PRY " + _PRY)


MAX_BYTES = 32 << 20  # an hour at 30 subtitles a second takes 27 MB
MAX_LINES = 1_500_000
MAX_SUBTITLE, MAX_SUBTITLE_LINES = 4096, 64  # what is read of one subtitle; cameras write at most 700 characters


@dataclass(frozen=True)
class _Block:
    """One subtitle: the line it starts at, its text, and the coordinates in the order that it writes them."""

    line: int
    text: str
    pair: tuple[str, str] | None
    latitude_first: bool


def read_srt(path: Path) -> PoseTrack:
    """Read a DJI subtitle file as a track on the video's clock.

    A subtitle that cannot be used is named, with its line, in the track's ``refused``. Raises SourceError, naming the
    line, where not one can be used.
    """
    text = read_regular(path, MAX_BYTES).decode("utf-8-sig", "replace")
    blocks = _blocks(path, text)
    if not blocks:
        raise SourceError(f"{path}, line 1: no subtitle, expected DJI telemetry; copy the file from the card again")
    swap = _longitude_beyond_90(blocks)
    track, refused, started_ns = PoseTrack("media"), Refusals(), None
    for block in blocks:
        try:
            media_ns, started_ns = _media_ns(block.text, started_ns)
            track.add(media_ns, _pose(block, swap))
        except ValueError as error:
            refused.add(f"{path}, line {block.line}: {error}")
    if not len(track):
        more = f", nor in {len(refused) - 1} more subtitles" if len(refused) > 1 else ""
        raise SourceError(f"{refused.lines[0]}{more}; expected DJI telemetry with a position, switch video captions on")
    track.refused = refused.lines
    return track


def _blocks(path: Path, text: str) -> list[_Block]:
    """Split at lines that are a bare counter: blank lines come inside, doubled, or not at all."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MAX_LINES:
        raise SourceError(f"{path}: more than {MAX_LINES} lines; expected the telemetry of one video")
    lines = text.split("\n")
    starts = [
        i
        for i, line in enumerate(lines)
        if line.strip().isascii() and line.strip().isdigit() and (i == 0 or not lines[i - 1].strip())
    ]
    if len(starts) > MAX_VALUES:
        raise SourceError(f"{path}: more than {MAX_VALUES} subtitles; expected the telemetry of one video")
    blocks: list[_Block] = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=False):
        body = "\n".join(lines[start + 1 : min(end, start + MAX_SUBTITLE_LINES)])[:MAX_SUBTITLE]
        latitude = _LATITUDE.search(body)
        longitude = _LONGITUDE.search(body, latitude.end()) if latitude else None
        if latitude and longitude:
            blocks.append(_Block(start + 1, body, (latitude[1], longitude[1]), True))
        elif gps := _GPS.search(body):
            blocks.append(_Block(start + 1, body, (gps[1], gps[2]), gps[4] == "M"))
        else:
            blocks.append(_Block(start + 1, body, None, True))
    return blocks


def _longitude_beyond_90(blocks: list[_Block]) -> bool:
    """Say whether a longitude-first file proves itself latitude-first by a second number that no latitude has."""
    pairs = [block.pair for block in blocks if block.pair is not None and not block.latitude_first]
    return any(abs(float(b)) > 90.0 for _, b in pairs) and all(abs(float(a)) <= 90.0 for a, _ in pairs)


def _media_ns(body: str, started_ns: int | None) -> tuple[int, int | None]:
    """Return the subtitle's time in the video; where the file has no timing lines, since its first date."""
    if timing := _TIMING.search(body):
        hours, minutes, seconds, fraction = timing.groups()
        whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
        return whole * 1_000_000_000 + int(fraction.ljust(3, "0")) * 1_000_000, started_ns
    date = _DATE.search(body)
    if date is None:
        raise ValueError("no time in this subtitle")
    year, month, day, clock, millis = date.groups()
    moment_ns = utc_ns(f"{year}-{int(month):02}-{int(day):02}T{clock}.{millis or '0'}")
    started_ns = moment_ns if started_ns is None else started_ns
    return moment_ns - started_ns, started_ns


def _pose(block: _Block, swap: bool) -> Pose:
    if block.pair is None:
        raise ValueError("no position, or one cut short, in this subtitle")
    first, second = block.pair
    lat_text, lon_text = (first, second) if block.latitude_first or swap else (second, first)
    lat_deg, lon_deg = position(number(lat_text), number(lon_text))
    height_m, altitude_m = _heights(block.text)
    vehicle, gimbal = _attitude(_F_PRY, block.text), _attitude(_G_PRY, block.text)
    if gb := _GIMBAL.search(block.text):
        gimbal = Attitude(number(gb[1]) % 360.0, number(gb[2]), number(gb[3]))
    if gimbal is not None and not measured(gimbal, vehicle):
        gimbal = None
    return Pose(
        utc_ns=0, lat_deg=lat_deg, lon_deg=lon_deg, height_m=height_m, altitude_m=altitude_m,
        vehicle=vehicle, gimbal=gimbal, h_acc_m=max(DEFAULT_H_ACC_M, rounding_m(lat_text)),
        zoom=_zoom(block.text),
    )  # fmt: skip


def _heights(text: str) -> tuple[float | None, float | None]:
    """Return the height above take-off and the altitude above the sea, each None where the dialect has none."""
    if both := _REL_ABS.search(text):
        return number(both[1]), number(both[2])
    height, altitude = _HEIGHT.search(text), _ALTITUDE.search(text)
    return number(height[1]) if height else None, number(altitude[1]) if altitude else None


def _attitude(pattern: re.Pattern[str], text: str) -> Attitude | None:
    found = pattern.search(text)
    return Attitude(number(found[3]) % 360.0, number(found[1]), number(found[2])) if found else None


def _zoom(text: str) -> float:
    """Return the digital zoom: a factor, or ten thousand times one in older firmware."""
    found = _ZOOM.search(text)
    zoom = number(found[1]) if found else 1.0
    zoom = zoom / 10_000 if zoom >= 1000.0 else zoom
    return zoom if 1.0 <= zoom <= 1000.0 else 1.0
