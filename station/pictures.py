"""Fetching single frames of a flight as small JPEGs: from its source where that is at hand, else from the flight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.errors import MissingError, SourceError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import read_pictures
from overflight.runtime.sources.image import opencv, read_image
from overflight.runtime.sources.recording import SUFFIXES
from overflight.runtime.sources.stills import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from overflight.station.summary import Summary

WIDTH = 320
QUALITY = 72
_CLOSE_S = 1.5  # a picture of the same label this close still shows what was seen
_NEAR_MS = 60.0  # a seek that lands further from the frame's own time shows another frame


def fetch(summary: Summary, rows: Iterable[int]) -> dict[int, bytes]:
    """Return the JPEGs of those ``rows`` of a flight that can still be had.

    What the source no longer has is taken from the small pictures that the flight itself keeps, of that frame or of one
    close to it.
    """
    rows = list(rows)
    found = _from_source(summary, rows)
    kept = kept_rows(summary)
    for row in rows:
        if row not in found and kept:
            nearest = min(kept, key=lambda other: abs(summary.times[other] - summary.times[row]))
            if summary.answers[nearest] == summary.answers[row] and _are_close(summary, nearest, row):
                found[row] = kept[nearest]
    return found


def kept_rows(summary: Summary) -> dict[int, bytes]:
    """Return the small pictures that the flight keeps, by its rows."""
    journal = summary.flight / JOURNAL
    if not journal.exists():
        return {}
    rows = {int(frame): row for row, frame in enumerate(summary.frames)}
    return {rows[kept.frame]: kept.jpeg for kept in read_pictures(journal) if kept.frame in rows}


def _are_close(summary: Summary, one: int, other: int) -> bool:
    if summary.axis == "pictures":
        return one == other
    return abs(float(summary.times[one] - summary.times[other])) <= _CLOSE_S


def _from_source(summary: Summary, rows: list[int]) -> dict[int, bytes]:
    try:
        path = Path(summary.record.source.removeprefix("file://")).expanduser()
        if summary.axis == "recording" and path.is_file() and path.suffix.lower() in SUFFIXES:
            return _from_recording(path, summary, sorted(rows))
        folder = folder_of(str(path)) or path.parent
        named = {row: folder / name for row in rows if (name := summary.names[row])}
        return {row: _encode(read_image(picture).pixels) for row, picture in named.items() if picture.is_file()}
    except (MissingError, SourceError, OSError):  # a report without pictures is still a report, and says so
        return {}


def _from_recording(path: Path, summary: Summary, rows: list[int]) -> dict[int, bytes]:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found = {}
    try:
        for row in rows:
            capture.set(cv2.CAP_PROP_POS_FRAMES, float(summary.frames[row]))
            read, pixels = capture.read()
            if read and abs(capture.get(cv2.CAP_PROP_POS_MSEC) - 1000 * summary.times[row]) <= _NEAR_MS:
                found[row] = _encode(pixels)
    finally:
        capture.release()
    return found


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    cv2 = opencv()
    height = max(1, round(pixels.shape[0] * WIDTH / pixels.shape[1]))
    small = cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
