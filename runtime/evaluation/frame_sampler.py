"""Gathering: frames from several sources, resized exactly as in flight, with where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from overflight.runtime.errors import OverflightError, SourceError, UsageError
from overflight.runtime.flight.directory import RECORD
from overflight.runtime.json_input import decode_json
from overflight.runtime.pose.source import open_poses
from overflight.runtime.pose.stills import read_still
from overflight.runtime.records import FlightRecord
from overflight.runtime.redact import redact
from overflight.runtime.resize import Resizer
from overflight.runtime.sources import open_source
from overflight.runtime.sources.image import SUFFIXES, read_image
from overflight.runtime.sources.stills import natural_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Resize
    from overflight.runtime.frame import Frame
    from overflight.runtime.pose.source import Poses


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """One frame, resized: ``pixels`` uint8 ``[S, S, 3]`` RGB.

    ``folder`` is the name of the folder a still lay in; ``height_m`` is above take-off or ground, where it is known.
    """

    source: str
    name: str | None
    number: int
    media_ns: int | None
    folder: str | None
    height_m: float | None
    pixels: NDArray[np.uint8]


class FrameSampler:
    """Walks over sources: files, folders (of folders) of stills, videos, and flights, whose own source is read again.

    ``skipped`` counts what could not be read, by reason, and ``unreadable`` says why. At most ``limit`` frames come,
    spread over everything.
    """

    def __init__(self, sources: Sequence[str], resize: Resize, limit: int) -> None:
        self.skipped: dict[str, int] = {}
        self.unreadable: list[str] = []
        self._resizer = Resizer(resize)
        self._stills: list[tuple[str, Path]] = []
        self._moving: list[str] = []
        for source in sources:
            self._add(source)
        self.limit = limit
        self._counts = [self._count(where) for where in self._moving]
        self.found = len(self._stills) + sum(self._counts)
        if not self.found:
            raise UsageError(f"{', '.join(map(redact, sources))}: no frames; name flights, videos or folders of stills")

    def _add(self, where: str) -> None:
        path = Path(where).expanduser()
        if (path / RECORD).is_file():
            record = decode_json((path / RECORD).read_bytes(), type=FlightRecord)
            self._add(record.source)
        elif path.is_dir():
            found = [one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and not one.name.startswith(".")]
            found.sort(key=lambda one: (one.parent, natural_order(one)))
            self._stills += [(where, one) for one in found]
        elif path.suffix.lower() in SUFFIXES:
            self._stills.append((where, path))
        else:
            self._moving.append(where)

    def _count(self, where: str) -> int:
        source = open_source(where)
        try:
            if source.live or not source.count:
                raise UsageError(f"{source.name}: has no end; record it first and name the recording")
            return source.count
        finally:
            source.close()

    def frames(self) -> Iterator[SampledFrame]:
        """Yield the frames. What cannot be read is counted in ``skipped``, not fatal."""
        for where, path in _spread(self._stills, self.limit * len(self._stills) // self.found or 1):
            try:
                yield self._resized(where, read_image(path), path.parent.name, _still_height(path))
            except SourceError as error:
                self._skip(error)
        for where, count in zip(self._moving, self._counts, strict=True):
            share = max(1, self.limit * count // self.found)
            wanted = set(_spread(range(count), share))
            source = open_source(where)
            poses = _sidecar_poses(Path(where))
            try:
                for index, frame in enumerate(source.frames()):
                    if index in wanted:
                        pose = None if poses is None else poses.of(frame)
                        yield self._resized(redact(where), frame, None, None if pose is None else pose.height_m)
            except SourceError as error:
                self._skip(error)
            finally:
                source.close()

    def _skip(self, error: SourceError) -> None:
        self.skipped["unreadable"] = self.skipped.get("unreadable", 0) + 1
        self.unreadable.append(str(error))

    def _resized(self, where: str, frame: Frame, folder: str | None, height_m: float | None) -> SampledFrame:
        pixels = np.empty((self._resizer.side, self._resizer.side, 3), np.uint8)
        self._resizer.resize(frame.picture, pixels, frame.order)
        return SampledFrame(where, frame.name, frame.number, frame.media_ns, folder, height_m, pixels)


def _still_height(path: Path) -> float | None:
    try:
        return read_still(path).pose.height_m
    except SourceError:  # most pictures carry no position
        return None


def _sidecar_poses(video: Path) -> Poses | None:
    """Return the telemetry that lies next to a video under its name, as DJI leaves it."""
    for suffix in (".SRT", ".srt"):
        if video.with_suffix(suffix).is_file():
            try:
                return open_poses(str(video.with_suffix(suffix)))
            except OverflightError:  # a torn log costs the heights, not the frames
                return None
    return None


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Take ``count`` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
