"""A pair of pictures on one grid of pixels: whatever their sizes, scales and map systems, read strip by strip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import UsageError, missing_extra
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.geotiff.georeference import Georeference
    from overflight.station.ground.picture import GroundPicture

    Coordinates = tuple[NDArray[np.float64], NDArray[np.float64]]
    Read = tuple[NDArray[np.uint8], NDArray[np.bool_]]

ASPECT = 0.02  # by which two pictures without a place may differ in shape
NODES_PX = 64  # a mapping between map systems is exact on nodes this far apart, and linear between them
LEAST_OVERLAP = 0.05  # of the ground of the smaller picture
_NODES = 64  # along each edge, at which the common ground is looked for


class Grid:
    """The pixels on which two pictures are compared: the first picture's, at the coarser scale of the two.

    ``origin`` is the first picture's pixel of the grid's corner, ``step`` how many of its pixels one of the grid is.
    """

    def __init__(self, first: GroundPicture, second: GroundPicture) -> None:
        """Lay the grid. Raises UsageError where the pictures cannot be brought together."""
        self.first, self.second = first, second
        names = f"{first.name} and {second.name}"
        self._map: Callable[[NDArray[np.float64], NDArray[np.float64]], Coordinates]
        if first.georeference is not None and second.georeference is not None:
            self._map = _map_between(first.georeference, second.georeference, names)
            self._back = _map_between(second.georeference, first.georeference, names)
            self.step = max(1.0, self._step())
            self.origin, self.width, self.height = self._overlap(names)
        elif (first.georeference is None) != (second.georeference is None):
            raise UsageError(f"{names}: one has a georeference and the other has none; georeference both or neither")
        else:
            scale_x, scale_y = second.width / first.width, second.height / first.height
            if abs(scale_x / scale_y - 1) > ASPECT:
                raise UsageError(
                    f"{names}: {first.width} x {first.height} and {second.width} x {second.height} pixels differ "
                    "in shape and have no georeference; cut both to one area, or use georeferenced files"
                )
            self._map = lambda x, y: (x * scale_x, y * scale_y)
            self.step = max(1.0, 1 / scale_x)
            self.origin = (0.0, 0.0)
            self.width, self.height = int(first.width / self.step), int(first.height / self.step)
        self.shift = (0.0, 0.0)  # of the second picture, in pixels of the grid

    def read(self, top: int, left: int, bottom: int, right: int, *, every: float = 1.0) -> tuple[Read, Read]:
        """Read a rectangle of the grid from both pictures, reduced ``every`` times: RGB, and what is known."""
        height, width = max(1, int((bottom - top) / every)), max(1, int((right - left) / every))
        rows = np.asarray((np.arange(height) + 0.5) * every + top, np.float64)
        columns = np.asarray((np.arange(width) + 0.5) * every + left, np.float64)
        first = self._positions(rows, columns, (0.0, 0.0), second=False)
        second = self._positions(rows, columns, self.shift, second=True)
        return _sample(self.first, *first), _sample(self.second, *second)

    def to_first(self, column: float, row: float) -> tuple[float, float]:
        """Return the first picture's pixel at a position of the grid."""
        return self.origin[0] + column * self.step, self.origin[1] + row * self.step

    def _positions(
        self, rows: NDArray[np.float64], columns: NDArray[np.float64], shift: tuple[float, float], *, second: bool
    ) -> Coordinates:
        """Return where pixels of the grid lie in a picture, ``[rows, columns]`` each for x and y."""
        node_rows, node_columns = _nodes(rows), _nodes(columns)
        x, y = np.meshgrid(node_columns + shift[0], node_rows + shift[1])
        x, y = self.origin[0] + x * self.step, self.origin[1] + y * self.step
        if second:
            x, y = self._map(x, y)
        down, across = _weights(node_rows, rows), _weights(node_columns, columns)
        return down @ x @ across.T, down @ y @ across.T

    def _step(self) -> float:
        """Return how many pixels of the first picture one of the second is, in the middle."""
        x, y = self.first.width / 2, self.first.height / 2
        xs, ys = self._map(np.array([x, x + 1.0, x]), np.array([y, y, y + 1.0]))
        across = float(np.hypot(xs[1] - xs[0], ys[1] - ys[0]))
        down = float(np.hypot(xs[2] - xs[0], ys[2] - ys[0]))
        finer = max(across, down)
        if not np.isfinite(finer) or finer <= 0:
            raise UsageError(f"{self.first.name} and {self.second.name}: their map systems do not meet; reproject one")
        return 1 / finer

    def _overlap(self, names: str) -> tuple[tuple[float, float], int, int]:
        """Return the first picture's pixel where the common part begins, and the grid's width and height."""
        x, y = _lattice(self.first)
        inside = _inside(*self._map(x, y), self.second)
        own_x, own_y = self._back(*_lattice(self.second))
        within = _inside(own_x, own_y, self.first)
        share = max(float(inside.mean()), float(within.mean()))
        if share < LEAST_OVERLAP:
            raise UsageError(
                f"{names}: {share:.0%} of the smaller one's ground is common to both, at least {LEAST_OVERLAP:.0%} is "
                "needed; check their places and map systems"
            )
        found_x, found_y = (np.concatenate(parts) for parts in ((x[inside], own_x[within]), (y[inside], own_y[within])))
        # What lies between two nodes is masked when it is read; a small second picture has the closer ones.
        pad_x, pad_y = (
            min(first, second / max(1e-9, self._step())) / _NODES
            for first, second in ((self.first.width, self.second.width), (self.first.height, self.second.height))
        )
        left, top = max(0.0, found_x.min() - pad_x), max(0.0, found_y.min() - pad_y)
        right = min(float(self.first.width), found_x.max() + pad_x)
        bottom = min(float(self.first.height), found_y.max() + pad_y)
        return (left, top), max(1, int((right - left) / self.step)), max(1, int((bottom - top) / self.step))


def _lattice(picture: GroundPicture) -> Coordinates:
    """Return positions all over a picture."""
    x, y = np.meshgrid(np.linspace(0, picture.width, _NODES + 1), np.linspace(0, picture.height, _NODES + 1))
    return x, y


def _inside(x: NDArray[np.float64], y: NDArray[np.float64], picture: GroundPicture) -> NDArray[np.bool_]:
    return np.asarray((x >= 0) & (x <= picture.width) & (y >= 0) & (y <= picture.height))


def _map_between(first: Georeference, second: Georeference, names: str) -> Callable[..., Coordinates]:
    """Return what turns pixels of the first picture into pixels of the second, by way of the ground."""
    t, u = first.transform, second.transform
    area = u[1] * u[5] - u[2] * u[4]
    convert: Any = None
    if first.epsg != second.epsg:
        if first.epsg is None or second.epsg is None:
            raise UsageError(f"{names}: one names no map system (EPSG:{first.epsg}, EPSG:{second.epsg}); name it: "
                             "gdal_edit.py -a_srs EPSG:CODE FILE")  # fmt: skip
        convert = _converter(first.epsg, second.epsg, names)

    def there(x: NDArray[np.float64], y: NDArray[np.float64]) -> Coordinates:
        east, north = t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5]
        if convert is not None:
            east, north = (np.asarray(part) for part in convert(east, north))
        east, north = east - u[0], north - u[3]
        return (u[5] * east - u[2] * north) / area, (u[1] * north - u[4] * east) / area

    return there


def _converter(first: int, second: int, names: str) -> Any:
    try:
        import pyproj
    except ImportError as error:
        raise missing_extra("pyproj", "station") from error
    try:
        return pyproj.Transformer.from_crs(first, second, always_xy=True).transform
    except pyproj.exceptions.CRSError as error:
        raise UsageError(f"{names}: EPSG:{first} or EPSG:{second} is not known ({error}); reproject one") from error


def _nodes(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    count = max(2, int((positions[-1] - positions[0]) / NODES_PX) + 2)
    return np.linspace(positions[0], positions[-1] + 1e-9, count)


def _weights(nodes: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix of linear interpolation from nodes to positions."""
    if len(positions) == 1:
        return np.eye(1, len(nodes))
    place = np.clip((positions - nodes[0]) / (nodes[1] - nodes[0]), 0, len(nodes) - 1)
    low = np.minimum(place.astype(int), len(nodes) - 2)
    found = np.zeros((len(positions), len(nodes)))
    rows = np.arange(len(positions))
    found[rows, low], found[rows, low + 1] = 1 - (place - low), place - low
    return found


def _sample(picture: GroundPicture, x: NDArray[np.float64], y: NDArray[np.float64]) -> Read:
    """Read a picture at positions (pixel corners count from 0), and which of them it knows."""
    cv2 = opencv()
    inside = (x >= 0) & (x <= picture.width) & (y >= 0) & (y <= picture.height)
    pixels = np.zeros((*x.shape, 3), np.uint8)
    if not inside.any():
        return pixels, inside
    left, top = max(0, int(x[inside].min()) - 8), max(0, int(y[inside].min()) - 8)
    right = min(picture.width, int(x[inside].max()) + 9)
    bottom = min(picture.height, int(y[inside].max()) + 9)
    part, known = picture.read(top, left, bottom, right)
    step = float(np.hypot(x[0, -1] - x[0, 0], y[0, -1] - y[0, 0]) / max(1, x.shape[1] - 1))
    if step > 1.3:  # reduced without this, fine texture would turn into false edges
        part = cv2.GaussianBlur(np.ascontiguousarray(part), (0, 0), step / 2.4)
    at_x, at_y = (x - left - 0.5).astype(np.float32), (y - top - 0.5).astype(np.float32)
    pixels = cv2.remap(np.ascontiguousarray(part), at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.remap(known.astype(np.uint8), at_x, at_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return pixels, (mask > 0) & inside
