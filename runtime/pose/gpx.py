"""Tracks in GPX 1.0 and 1.1, as loggers and phones write them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.parsers import expat

from overflight.runtime.errors import SourceError
from overflight.runtime.pose.fields import number, position, utc_ns
from overflight.runtime.pose.record import Pose
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from pathlib import Path


def read_gpx(path: Path) -> PoseTrack:
    """Read a GPX track on the UTC clock: elevation becomes the altitude; a GPX point has no height above ground.

    A point that cannot be used is named in the track's ``refused``. Raises SourceError where the file is not GPX,
    declares entities, or has not one usable point with a time.
    """
    track, refused = PoseTrack("utc"), []
    for line, point in _points(path):
        try:
            lat_deg, lon_deg = position(number(point["lat"]), number(point["lon"]))
            t_ns = utc_ns(point["time"])
            altitude = number(point["ele"]) if point.get("ele", "").strip() else None
            track.add(t_ns, Pose(utc_ns=t_ns, lat_deg=lat_deg, lon_deg=lon_deg, altitude_m=altitude))
        except KeyError as error:
            refused.append(f"{path}, line {line}: the track point has no {error.args[0]}")
        except (ValueError, OverflowError) as error:
            refused.append(f"{path}, line {line}: {error}")
    if not len(track):
        raise SourceError(f"{refused[0] if refused else f'{path}, line 1: no track point'}; expected trkpt with a time")
    track.refused = tuple(refused)
    return track


def _points(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the track points with their lines: coordinates and the text of their children."""
    parser = expat.ParserCreate(namespace_separator=" ")
    points: list[tuple[int, dict[str, str]]] = []
    inside: list[str] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        inside.append(name.rpartition(" ")[2])
        if inside[-1] == "trkpt":
            points.append((parser.CurrentLineNumber, dict(attributes)))

    def text(data: str) -> None:
        if len(inside) > 1 and inside[-2] == "trkpt":
            points[-1][1][inside[-1]] = points[-1][1].get(inside[-1], "") + data

    def refuse(*_: object) -> None:
        raise SourceError(f"{path}, line {parser.CurrentLineNumber}: declares entities; expected plain GPX")

    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: inside.pop()
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise SourceError(f"{path}, line {parser.CurrentLineNumber}: {error}; expected GPX") from error
    return points
