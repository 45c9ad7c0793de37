"""The picture of a row: the small one that the journal kept nearest, else the source itself where it is still there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overflight.runtime.errors import OverflightError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.sources.image import SUFFIXES, opencv, read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.station.archive.store import Archive, ArchivedFlight

NEAR_FRAMES = 90  # three seconds at 30 frames a second: farther than this, a picture shows something else
WIDTH_PX = 320


class RowPicture(NamedTuple):
    """A JPEG of a row, and how many frames it lies from the frame that was searched (0: the frame itself)."""

    jpeg: bytes
    frames_away: int


def picture_of(archive: Archive, flight: ArchivedFlight, frame: int, name: str | None = None) -> RowPicture | None:
    """Return a picture of a frame: from its still where that can be read, else the nearest small one of the journal."""
    still = source_still(archive, flight, name)
    if still is not None:
        return RowPicture(still, 0)
    journal = archive.flight_directory(flight.id) / JOURNAL
    with closing(sqlite3.connect(journal, timeout=5.0)) as connection:
        try:
            found = connection.execute(
                "SELECT jpeg, abs(frame - ?) FROM pictures ORDER BY abs(frame - ?) LIMIT 1", (frame, frame)
            ).fetchone()
        except sqlite3.DatabaseError:  # format 1 kept no pictures
            found = None
    return None if found is None or found[1] > NEAR_FRAMES else RowPicture(*found)


def write_row_picture(archive: Archive, row: int, path: Path) -> Path | None:
    """Write the picture of a row as a JPEG; None where none is left."""
    flight = next(one for one in archive.flights() if one.first <= row < one.first + one.rows)
    with archive.read() as connection:
        frame, name = connection.execute("SELECT frame, name FROM rows WHERE id = ?", (row,)).fetchone()
    found = picture_of(archive, flight, frame, name)
    if found is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.jpeg)
    return path


def source_still(archive: Archive, flight: ArchivedFlight, name: str | None) -> bytes | None:
    """Return a still of the flight's source as a small JPEG; None where the source is not there any more."""
    if name is None or flight.source_path is None or Path(name).suffix.lower() not in SUFFIXES:
        return None
    folder = (archive.directory / flight.source_path).resolve()
    path = folder / name if folder.is_dir() else folder
    try:
        frame = read_image(path)
    except OverflightError:
        return None
    return shrink(frame.pixels if frame.order == "bgr" else frame.pixels[:, :, ::-1])


def shrink(pixels: NDArray[np.uint8], width_px: int = WIDTH_PX) -> bytes:
    """Encode BGR pixels as a JPEG of ``width_px``."""
    cv2 = opencv()
    height, width = pixels.shape[:2]
    size = (width_px, max(1, round(height * width_px / width)))
    _, jpeg = cv2.imencode(
        ".jpg", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, 80]
    )
    return bytes(jpeg)


def cut_tile(jpeg: bytes, tile: int, rows: int, columns: int) -> bytes:
    """Mark a tile (from 1, row by row) in a small picture, so that the eye finds it in its surroundings."""
    cv2 = opencv()
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    height, width = pixels.shape[:2]
    row, column = divmod(tile - 1, columns)
    corners = (
        (round(column * width / columns), round(row * height / rows)),
        (round((column + 1) * width / columns) - 1, round((row + 1) * height / rows) - 1),
    )
    cv2.rectangle(pixels, *corners, (0, 0, 0), 4)
    cv2.rectangle(pixels, *corners, (80, 220, 255), 2)
    _, marked = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return bytes(marked)
