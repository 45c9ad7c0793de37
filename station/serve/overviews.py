"""Orthomosaics as one small picture each, read piece by piece and kept while the server runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import OverflightError
from overflight.runtime.sources.image import opencv
from overflight.runtime.sources.mosaic import Mosaic
from overflight.runtime.window import Window
from overflight.station.archive.places import window_place
from overflight.station.serve.endpoint import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.pose.footprint import Place

WIDEST_PX = 2048
PIECE_PX = 1024
KEPT = 12
_Key = tuple["Path", int, int]


class Overviews:
    """Small pictures of mosaics, and where they lie; one mosaic is read at a time."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        self._reading = threading.Lock()
        self._pictures: dict[_Key, bytes] = {}
        self._places: dict[_Key, Place | None] = {}

    def read(self, path: Path) -> bytes:
        """Return a mosaic as WebP, transparent where it shows nothing. Raises OverflightError."""
        key = _key(path)
        with self._reading:
            if key not in self._pictures:
                while len(self._pictures) >= KEPT:
                    del self._pictures[next(iter(self._pictures))]
                self._pictures[key] = self._shrunk(path)
            return self._pictures[key]

    def place(self, path: Path) -> Place | None:
        """Return the ground of a mosaic; None where it does not say, or cannot be read."""
        key = _key(path)
        if key not in self._places:
            try:
                self._places[key] = _place(path)
            except OverflightError:
                self._places[key] = None
        return self._places[key]

    def _shrunk(self, path: Path) -> bytes:
        mosaic = Mosaic(path, PIECE_PX, small_cache=True)
        try:
            width, height = mosaic.size
            scale = min(1.0, WIDEST_PX / max(width, height))
            sheet = np.zeros((max(1, round(height * scale)), max(1, round(width * scale)), 4), np.uint8)
            for top in range(0, height, PIECE_PX):
                for left in range(0, width, PIECE_PX):
                    if self._closing.is_set():
                        raise RefusedError(503, "closing", "the server is stopping; ask again when it runs")
                    bottom, right = min(top + PIECE_PX, height), min(left + PIECE_PX, width)
                    _paint(sheet, mosaic.region(top, left, bottom, right), (top, left, bottom, right), scale)
        finally:
            mosaic.close()
        _, encoded = opencv().imencode(".webp", sheet, [opencv().IMWRITE_WEBP_QUALITY, 80])
        return bytes(encoded)


def _paint(sheet: Any, piece: tuple[Any, Any], box: tuple[int, int, int, int], scale: float) -> None:
    """Shrink a piece and lay it on the sheet, BGR with its transparency."""
    pixels, known = piece
    top, left, bottom, right = (round(edge * scale) for edge in box)
    if bottom > top and right > left:
        size, area = (right - left, bottom - top), opencv().INTER_AREA
        sheet[top:bottom, left:right, :3] = opencv().resize(pixels, size, interpolation=area)[:, :, ::-1]
        sheet[top:bottom, left:right, 3] = opencv().resize(known.astype(np.uint8) * 255, size, interpolation=area)


def _place(path: Path) -> Place | None:
    mosaic = Mosaic(path)
    try:
        found, (width, height) = mosaic.georeference, mosaic.size
    finally:
        mosaic.close()
    if found is None:
        return None
    epsg = 4326 if found.geographic and found.epsg is None else found.epsg
    return window_place(Window(0, 0, width, height, found.transform, epsg))


def _key(path: Path) -> _Key:
    found = path.stat()
    return path, found.st_size, found.st_mtime_ns
