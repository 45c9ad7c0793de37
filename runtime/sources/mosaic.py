"""Orthomosaics and other large TIFF files as a source: window by window, shown as 8-bit colour."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.geotiff.georeference import Georeference, read_georeference
from overflight.runtime.geotiff.layout import (
    BLACK_IS_ZERO,
    BY_LIBTIFF,
    DEFLATE,
    PALETTE,
    PLAIN,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    open_tiff,
    rewrite,
)
from overflight.runtime.geotiff.raster import Raster
from overflight.runtime.pose.fields import number
from overflight.runtime.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

WINDOW_PX = 1024
_SAMPLED_PIECES, _SAMPLED_BYTES = 32, 64 << 20  # from which the stretch is taken
_PERCENTILES = (2.0, 98.0)
_GEOREFERENCES = (33550, 33922, 34264)  # pixel scale, tie points, matrix
_PICTURES = BY_LIBTIFF | DEFLATE | {PLAIN}  # the compressions that the still reader knows
_MOST_PICTURE_BANDS = 4
_NO_BANDS: tuple[int, ...] = ()


@dataclass(frozen=True)
class View:
    """How a mosaic is looked at: the size of its windows, the bands to show, and the range that becomes 0 to 255.

    Without ``bands``, those that the file names; without ``stretch``, 8-bit values stay as they are and others are
    stretched between their 2nd and 98th percentile.
    """

    window: int = WINDOW_PX
    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None

    @classmethod
    def parse(cls, query: str) -> View:
        """Read ``window=512&bands=4,3,2&stretch=0,3000``, each optional. Raises ValueError."""
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
        window, bands, stretch = (given.pop(name, None) for name in ("window", "bands", "stretch"))
        if given:
            raise ValueError(f"{next(iter(given))} is not an option")
        size = WINDOW_PX if window is None else int(window)
        chosen = None if bands is None else tuple(int(band) for band in bands.split(","))
        low_high = None if stretch is None else tuple(number(part) for part in stretch.split(","))
        if not 1 <= size <= 65_536 or (chosen is not None and (len(chosen) not in {1, 3} or min(chosen) < 1)):
            raise ValueError("a window has at least 1 px, and 1 or 3 bands are shown, counted from 1")
        if low_high is not None and (len(low_high) != 2 or not low_high[0] < low_high[1]):
            raise ValueError("a stretch is LOW,HIGH")
        return cls(size, chosen, None if low_high is None else (low_high[0], low_high[1]))


def is_mosaic(path: Path, window: int = WINDOW_PX) -> bool:
    """Whether a file is a TIFF of more than two windows across or down, or one that lies somewhere on the earth.

    So is one whose bands or coding are those of maps rather than of pictures.
    """
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return False
    try:
        with open_tiff(path) as tiff:
            page = tiff.pages[0]
            placed = any(page.tags.valueof(code) is not None for code in _GEOREFERENCES)
            coded = int(page.compression) not in _PICTURES or int(page.samplesperpixel) > _MOST_PICTURE_BANDS
            return placed or coded or max(int(page.imagewidth), int(page.imagelength)) > 2 * window
    except (SourceError, TypeError, ValueError):  # the latter where a damaged tag has another type
        return False  # the still reader says what is wrong with it


class Mosaic:
    """Every window of one large TIFF file, row by row; the last of a row or column reaches back to be whole.

    ``notes`` says what was assumed: the range that was stretched, a georeference that could not be used.
    """

    live = False

    def __init__(
        self, path: Path, window: int = WINDOW_PX, view: View | None = None, *, small_cache: bool = False
    ) -> None:
        """Open a mosaic. Raises SourceError for a file that cannot be shown, UsageError for a view of other bands.

        ``small_cache`` keeps only the decoded pieces that neighbouring windows share; pieces that two rows of windows
        share are then decoded twice.
        """
        view = View(window) if view is None else view
        self.name = str(path)
        self._file = path.name
        self._raster = Raster(path)
        try:
            self._georeference, notes = read_georeference(self._raster.page, path)
            self.notes = [f"{path.name}: {note}" for note in notes]
            self._bands = _shown(self._raster.layout, view.bands)
            self._stretch = view.stretch or self._usual_stretch()
        except (SourceError, UsageError):
            self._raster.close()
            raise
        layout = self._raster.layout
        self._given_bands = view.bands
        longest = max(layout.width, layout.height)
        self._window = view.window if longest > 2 * view.window else longest  # what fits one look is not cut
        self._tops, self._lefts = _starts(layout.height, self._window), _starts(layout.width, self._window)
        if small_cache:
            self._raster.limit_cache(self._window, self._window)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self._tops) * len(self._lefts)

    @property
    def grid(self) -> tuple[int, int]:
        """How many rows and columns of windows there are."""
        return len(self._tops), len(self._lefts)

    @property
    def gsd_m(self) -> float | None:
        """How many metres of ground a pixel covers in the middle; None where the file does not say."""
        layout, found = self._raster.layout, self._georeference
        return None if found is None else found.gsd_m(layout.width / 2, layout.height / 2)

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Frame]:
        """Read the windows from ``first`` to before ``last``. Raises SourceError at the end if some cannot be read."""
        lost = unreadable = 0
        reason = ""
        where = [(top, left) for top in self._tops for left in self._lefts][first:last]
        for place, (top, left) in enumerate(where, start=first):
            arrived_ns = time.monotonic_ns()
            try:
                pixels = self._read(top, left)
            except SourceError as error:
                lost, unreadable, reason = lost + 1, unreadable + 1, reason or str(error)
                continue
            yield Frame(
                pixels,
                place,
                arrived_ns,
                order="bgr",
                name=f"{self._file}@{left},{top}",
                dropped={"unreadable": lost} if lost else {},
                window=self._place(top, left, pixels),
            )
            lost = 0
        if unreadable:
            raise SourceError(
                f"{self.name}: {unreadable} of {len(where)} windows cannot be decoded "
                f"({reason.removeprefix(f'{self.name}: ').partition(';')[0]}); copy it again, or rewrite it: "
                f"{rewrite(self.name)}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._raster.layout.width, self._raster.layout.height

    @property
    def georeference(self) -> Georeference | None:
        """Where the mosaic lies; None where the file does not say."""
        return self._georeference

    @property
    def masked(self) -> bool:
        """Whether the file itself marks pixels without a picture: by an alpha band, a value, or numbers not finite."""
        layout = self._raster.layout
        return layout.alpha is not None or layout.nodata is not None or layout.dtype.kind == "f"

    def region(self, top: int, left: int, bottom: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle as RGB ``[H, W, 3]`` and which of its pixels have a picture ``[H, W]``."""
        layout = self._raster.layout
        alpha = _NO_BANDS if layout.alpha is None else (layout.alpha,)
        values = self._raster.read(top, left, bottom, right, (*self._bands, *alpha))
        shown = values[:, :, : len(self._bands)]
        known = np.isfinite(shown).all(axis=2)
        if layout.nodata is not None:
            known &= ~(shown == layout.nodata).all(axis=2)
        if alpha:
            known &= values[:, :, -1] > 0
        pixels = _to_8_bits(shown, self._stretch, layout)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels), known

    def close(self) -> None:
        """Close the file."""
        self._raster.close()

    def _read(self, top: int, left: int) -> NDArray[np.uint8]:
        layout = self._raster.layout
        bottom, right = min(top + self._window, layout.height), min(left + self._window, layout.width)
        shown = _to_8_bits(self._raster.read(top, left, bottom, right, self._bands), self._stretch, layout)
        if shown.shape[2] == 1:
            return np.repeat(shown, 3, axis=2)
        return np.ascontiguousarray(shown[:, :, ::-1])

    def _usual_stretch(self) -> tuple[float, float] | None:
        """Return the range between the 2nd and 98th percentile of some pieces, None for 8 bits, and note it."""
        layout = self._raster.layout
        if layout.dtype == np.uint8 or layout.palette is not None:
            return None
        piece_bytes = layout.segment_width * layout.segment_height * layout.samples * layout.dtype.itemsize
        pieces = layout.across * layout.down
        wanted = min(pieces, _SAMPLED_PIECES, max(1, _SAMPLED_BYTES // piece_bytes))
        values: list[NDArray[Any]] = []
        for index in np.linspace(0, pieces - 1, wanted).round().astype(int).tolist():
            values += self._sample(index)
        found = np.concatenate(values) if values else np.zeros(0)
        low, high = np.percentile(found, _PERCENTILES).tolist() if found.size else (0.0, 1.0)
        high = high if high > low else low + 1.0
        self.notes.append(
            f"{self._file}: {layout.dtype.itemsize * 8}-bit values {low:g} to {high:g} are shown as 0 to 255 (the 2nd "
            f"to 98th percentile of {wanted} of {pieces} pieces); other range: file://{self.name}?stretch=LOW,HIGH"
        )
        return low, high

    def _sample(self, index: int) -> list[NDArray[Any]]:
        """Return the values of one place's shown bands that are neither missing nor transparent."""
        layout = self._raster.layout
        row, column = divmod(index, layout.across)
        top, left = row * layout.segment_height, column * layout.segment_width
        bottom = min(top + layout.segment_height, layout.height)
        right = min(left + layout.segment_width, layout.width)
        alpha = _NO_BANDS if layout.alpha is None else (layout.alpha,)
        try:
            read = self._raster.read(top, left, bottom, right, (*self._bands, *alpha))
        except SourceError:
            return []  # named when its window is read
        values = read[:, :, : len(self._bands)].astype(np.float64)
        usable = np.isfinite(values)
        if layout.nodata is not None:
            usable &= values != layout.nodata
        if alpha:
            usable &= read[:, :, -1:] > 0
        return [values[usable][:: max(1, values.size // 1_000_000)]]

    def _place(self, top: int, left: int, pixels: NDArray[np.uint8]) -> Window:
        height, width, _ = pixels.shape
        found = self._georeference
        return Window(
            left,
            top,
            width,
            height,
            None if found is None else found.at(left, top),
            None if found is None else found.epsg,
            None if found is None else found.gsd_m(left + width / 2, top + height / 2),
            self._given_bands,
            self._stretch,
        )


def _shown(layout: Layout, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the bands to show, counted from 0: one grey, or red, green and blue. Raises SourceError or UsageError."""
    if given is not None:
        if max(given) > layout.bands:
            raise UsageError(f"{layout.name}: bands={','.join(map(str, given))}, but it has {layout.bands} bands")
        return tuple(band - 1 for band in given)
    named = tuple(layout.roles.index(role) for role in ("red", "green", "blue") if role in layout.roles)
    if len(named) == 3:
        return named
    if layout.photometric in {RGB, YCBCR} and layout.bands >= 3:
        return 0, 1, 2
    colours = layout.bands - (layout.alpha is not None)
    if layout.photometric in {WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE} and colours in {1, 3}:
        return tuple(range(colours))
    if layout.photometric in {WHITE_IS_ZERO, BLACK_IS_ZERO}:
        raise SourceError(
            f"{layout.name}: {layout.bands} bands, and it does not say which are red, green and blue; choose them: "
            f"file://{layout.name}?bands=3,2,1"
        )
    raise SourceError(
        f"{layout.name}: {layout.bands} bands, photometric {layout.photometric}: expected grey, RGB, YCbCr or a "
        f"palette; convert it: {rewrite(layout.name, '-b 1 -b 2 -b 3 ')}"
    )


def _to_8_bits(values: NDArray[Any], stretch: tuple[float, float] | None, layout: Layout) -> NDArray[np.uint8]:
    """Map values to 0 to 255; what is missing becomes black."""
    if layout.palette is not None:
        table = (np.array(layout.palette, np.uint32).reshape(3, -1) >> 8).astype(np.uint8)
        coloured: NDArray[np.uint8] = table[:, np.minimum(values[:, :, 0], table.shape[1] - 1)].transpose(1, 2, 0)
        return coloured
    if stretch is None:
        shown: NDArray[np.uint8] = values.astype(np.uint8, copy=False)
    else:
        numbers = values.astype(np.float32)
        missing = ~np.isfinite(numbers) if layout.nodata is None else ~np.isfinite(numbers) | (values == layout.nodata)
        scaled = (np.where(missing, stretch[0], numbers) - stretch[0]) * (255.0 / (stretch[1] - stretch[0]))
        shown = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return 255 - shown if layout.photometric == WHITE_IS_ZERO else shown


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover an edge and none is cut short."""
    if length <= window:
        return [0]
    return [*range(0, length - window, window), length - window]
