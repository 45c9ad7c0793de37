"""Tracks in GPX 1.0 and 1.1, as loggers and phones write them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.parsers import expat

from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.fields import number, position, utc_ns
from overflight.runtime.pose.record import Pose
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 32 << 20  # a day at one point a second takes 15 MB
MAX_DEPTH = 32
MAX_TEXT = 64  # characters of a coordinate, a time or an elevation


def read_gpx(path: Path) -> PoseTrack:
    """Read a GPX track on the UTC clock: elevation becomes the altitude; a GPX point has no height above ground.

    A point that cannot be used is named in the track's ``refused``. Raises SourceError where the file is not GPX,
    declares entities, or has not one usable point with a time.
    """
    track, refused = PoseTrack("utc"), Refusals()

    def add(line: int, point: dict[str, str]) -> None:
        try:
            lat_deg, lon_deg = position(number(point["lat"]), number(point["lon"]))
            t_ns = utc_ns(point["time"])
            altitude = number(point["ele"]) if point.get("ele", "").strip() else None
            track.add(t_ns, Pose(utc_ns=t_ns, lat_deg=lat_deg, lon_deg=lon_deg, altitude_m=altitude))
        except KeyError as error:
            refused.add(f"{path}, line {line}: the track point has no {error.args[0]}")
        except (ValueError, OverflowError) as error:
            refused.add(f"{path}, line {line}: {error}")

    _parse(path, add)
    if not len(track):
        reason = refused.lines[0] if refused else f"{path}, line 1: no track point"
        raise SourceError(f"{reason}; expected trkpt with a time")
    track.refused = refused.lines
    return track


def _parse(path: Path, add: Callable[[int, dict[str, str]], None]) -> None:
    """Hand each track point with its line to ``add``: its coordinates, and the text of its time and elevation."""
    parser = expat.ParserCreate(namespace_separator=" ")
    inside: list[str] = []
    point: dict[str, str] = {}
    line = 1

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(inside) == MAX_DEPTH:
            raise SourceError(f"{path}, line {parser.CurrentLineNumber}: more than {MAX_DEPTH} levels; expected GPX")
        inside.append(name.rpartition(" ")[2])
        if inside[-1] == "trkpt":
            nonlocal line
            line = parser.CurrentLineNumber
            point.clear()
            point.update((key, attributes[key][:MAX_TEXT]) for key in ("lat", "lon") if key in attributes)

    def end(_: str) -> None:
        if inside.pop() == "trkpt":
            add(line, point)

    def text(data: str) -> None:
        if len(inside) > 1 and inside[-2] == "trkpt" and inside[-1] in {"time", "ele"}:
            said = point.get(inside[-1], "")
            point[inside[-1]] = said + data[: MAX_TEXT - len(said)]

    def refuse(*_: object) -> None:
        raise SourceError(f"{path}, line {parser.CurrentLineNumber}: declares entities; expected plain GPX")

    parser.buffer_text = True  # else every line of a text is a call
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_regular(path, MAX_BYTES), True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise SourceError(f"{path}, line {parser.CurrentLineNumber}: {error}; expected GPX") from error
