"""A picture of the ground: a still or a mosaic of any size, with its ground sample distance and its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError, SourceError, UsageError
from overflight.runtime.sources.image import SUFFIXES, opencv, read_noted
from overflight.runtime.sources.mosaic import Mosaic, is_mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.geotiff.georeference import Georeference
    from overflight.runtime.pose.footprint import Place

MAP_ERROR = 0.01  # share by which a georeferenced product's scale is taken to be wrong; the file does not say
GIVEN_ERROR = 0.05  # share by which a distance that a person gives is taken to be wrong
_WITH_ALPHA = frozenset({".png", ".webp"})

Pixels = "tuple[NDArray[np.uint8], NDArray[np.bool_]]"


class GroundSample(msgspec.Struct, frozen=True):
    """How many metres of ground a pixel covers, the share by which that may be wrong, and where it comes from."""

    gsd_m: float
    error: float
    origin: Literal["georeference", "telemetry", "given"]


class _Reader(Protocol):
    def region(self, top: int, left: int, bottom: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle as RGB, and which of its pixels have a picture."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class GroundPicture:
    """An opened picture of ``width`` by ``height`` pixels.

    ``georeference`` maps its pixels to a map's coordinates, ``place`` is the footprint of a still with telemetry;
    either is None where it is not known. ``notes`` say what was assumed. ``sha256`` is the hash of its file.
    """

    name: str
    width: int
    height: int
    sha256: str
    ground: GroundSample | None
    georeference: Georeference | None
    place: Place | None
    taken_utc_ns: int | None
    notes: tuple[str, ...]
    reader: _Reader

    def read(self, top: int, left: int, bottom: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle as RGB ``[H, W, 3]``, and which of its pixels have a picture ``[H, W]``."""
        return self.reader.region(top, left, bottom, right)

    def overview(self, longest: int = 1024) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the whole picture reduced to ``longest`` pixels, in strips, so that memory stays bounded."""
        cv2 = opencv()
        scale = min(1.0, longest / max(self.width, self.height))
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        if scale == 1.0:
            return self.read(0, 0, self.height, self.width)
        pixels, known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.bool_)
        edges = [round(row * self.height / height) for row in range(0, height + 1)]
        step = max(1, round(256 * scale))
        for first in range(0, height, step):
            last = min(height, first + step)
            part, mask = self.read(edges[first], 0, max(edges[first] + 1, edges[last]), self.width)
            size = (width, last - first)
            pixels[first:last] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
            known[first:last] = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return pixels, known

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


def open_picture(path: Path, *, gsd_m: float | None = None) -> GroundPicture:
    """Open a still or a mosaic. ``gsd_m`` replaces what the file says. Raises SourceError or UsageError."""
    if gsd_m is not None and not 0 < gsd_m < 1000:
        raise UsageError(f"--gsd {gsd_m:g}: expected metres a pixel, such as 0.05")
    given = None if gsd_m is None else GroundSample(gsd_m, GIVEN_ERROR, "given")
    if path.is_dir():
        raise UsageError(f"{path}: a folder; name one picture or mosaic")
    if is_mosaic(path):
        return _open_mosaic(path, given)
    return _open_still(path, given)


def _open_mosaic(path: Path, given: GroundSample | None) -> GroundPicture:
    mosaic = Mosaic(path)
    width, height = mosaic.size
    found = mosaic.georeference
    gsd_m = None if found is None else found.gsd_m(width / 2, height / 2)
    ground = None if gsd_m is None else GroundSample(gsd_m, MAP_ERROR, "georeference")
    notes = list(mosaic.notes)
    reader: _Reader = mosaic
    if not mosaic.masked:
        notes.append(f"{path.name}: the file marks no missing pixels; pure black was taken as missing")
        reader = _BlackIsMissing(mosaic)
    return GroundPicture(
        str(path), width, height, hash_file(path), given or ground, found, None, None, tuple(notes), reader
    )


def _open_still(path: Path, given: GroundSample | None) -> GroundPicture:
    if path.suffix.lower() not in SUFFIXES and path.exists():
        raise UsageError(f"{path}: not a picture that is known; expected one of {', '.join(sorted(SUFFIXES))}")
    frame, note = read_noted(path)
    pixels = np.ascontiguousarray(frame.pixels[:, :, ::-1] if frame.order == "bgr" else frame.pixels)
    height, width = pixels.shape[:2]
    place, taken_utc_ns, ground, notes = _telemetry(path, (width, height))
    return GroundPicture(
        str(path),
        width,
        height,
        hash_file(path),
        given or ground,
        None,
        place,
        taken_utc_ns,
        (*notes, *([note] if note else [])),
        _Whole(pixels, _alpha(path, (height, width))),
    )


def _telemetry(
    path: Path, size: tuple[int, int]
) -> tuple[Place | None, int | None, GroundSample | None, tuple[str, ...]]:
    """Return the footprint, the time and the ground sample distance that a still's own tags give."""
    from overflight.runtime.pose.footprint import above_ground_m, height_error_m, locate
    from overflight.runtime.pose.stills import read_still

    try:
        still = read_still(path)
        camera = still.lens.camera(size)
        place = None if camera is None else locate(still.pose, camera, size)
    except OverflightError:
        return None, None, None, ()
    taken = still.pose.utc_ns or None
    if camera is None or place is None or place.gsd_m is None:
        return place, taken, None, still.notes
    height_m = above_ground_m(still.pose, camera)
    error = 0.1 if height_m is None else height_error_m(height_m) / max(1.0, height_m)
    return place, taken, GroundSample(place.gsd_m, error, "telemetry"), still.notes


def _alpha(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where a still with transparency shows something; everywhere for any other still."""
    known = np.ones(shape, np.bool_)
    if path.suffix.lower() not in _WITH_ALPHA:
        return known
    cv2 = opencv()
    raw = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4 or raw.shape[:2] != shape:
        return known
    known &= raw[:, :, 3] > 0
    if not known.any():
        raise SourceError(f"{path}: every pixel is transparent; export the picture again")
    return known


@dataclass(frozen=True)
class _Whole:
    """A picture that is in memory whole."""

    pixels: NDArray[np.uint8]
    known: NDArray[np.bool_]

    def region(self, top: int, left: int, bottom: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return self.pixels[top:bottom, left:right], self.known[top:bottom, left:right]

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True)
class _BlackIsMissing:
    """A mosaic that marks nothing as missing: its black border is."""

    mosaic: Mosaic

    def region(self, top: int, left: int, bottom: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        pixels, known = self.mosaic.region(top, left, bottom, right)
        return pixels, known & pixels.any(axis=2)

    def close(self) -> None:
        self.mosaic.close()
