"""Terrain: the height of the ground from an elevation model, and where a camera's rays meet it."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.runtime.geodesy import metres_per_degree, utm
from overflight.runtime.geotiff.georeference import Georeference, is_utm, read_georeference
from overflight.runtime.geotiff.raster import Raster
from overflight.runtime.pose.fields import number, position

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.pose.attitude import Vector
    from overflight.runtime.pose.record import Pose

CACHE_BYTES = 64 << 20
TERRAIN_ERROR_M = 4.0  # of SRTM and Copernicus GLO-30, vertically (68 %)
ALTITUDE_ERROR_M = 10.0  # of a receiver's altitude above the sea, where no take-off point ties it to the model
LOWEST_M, HIGHEST_M = -500.0, 9000.0  # anything else in a model is a hole
_STEPS, _REFINED = 128, 3  # along a ray: the first crossing among so many steps, then straight lines between two
_MOST_PATCH_PX = 4_000_000  # of the part around the camera that is kept decoded
_DEEPEST_M = 3000.0  # below the camera


class Terrain:
    """An elevation model in degrees or in a zone of UTM, read piece by piece.

    ``takeoff_m`` is the height of the ground at the take-off point, where that is known.
    """

    def __init__(self, raster: Raster, georeference: Georeference, takeoff: tuple[float, float] | None = None) -> None:
        self._raster = raster
        self._georeference = georeference
        self._patch: tuple[int, int, NDArray[np.float32]] | None = None
        self.takeoff_m = None if takeoff is None else self.height_m(*takeoff)

    @classmethod
    def open(cls, address: str) -> Terrain:
        """Open ``DEM.tif?takeoff=LAT,LON``. Raises UsageError, MissingError or SourceError."""
        name, _, query = address.partition("?")
        try:
            given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
            point = given.pop("takeoff", None)
            lat_lon = None if point is None else tuple(number(part) for part in point.split(","))
            if given or (lat_lon is not None and len(lat_lon) != 2):
                raise ValueError("not understood")
            takeoff = None if lat_lon is None else position(lat_lon[0], lat_lon[1])
        except ValueError as error:
            raise UsageError(f"--terrain {address}: {error}; expected DEM.tif?takeoff=LATITUDE,LONGITUDE") from error
        path = Path(name)
        if not path.is_file():
            raise MissingError(f"--terrain {path}: no such file; expected an elevation model as GeoTIFF")
        raster = Raster(path, CACHE_BYTES)
        try:
            georeference, notes = read_georeference(raster.page, path)
        except SourceError:
            raster.close()
            raise
        if georeference is None or not (georeference.geographic or is_utm(georeference.epsg)):
            raster.close()
            why = "; ".join(notes) or ("no georeference" if georeference is None else f"EPSG:{georeference.epsg}")
            raise SourceError(
                f"--terrain {path}: {why}; expected degrees or UTM on WGS 84: gdalwarp -t_srs EPSG:4326 {path} new.tif"
            )
        terrain = cls(raster, georeference, takeoff)
        if takeoff is not None and terrain.takeoff_m is None:
            raster.close()
            raise UsageError(f"--terrain {address}: the take-off point is not on this model; name a point that is")
        return terrain

    def close(self) -> None:
        """Close the model."""
        self._raster.close()

    def height_m(self, lat_deg: float, lon_deg: float) -> float | None:
        """Return the height of the ground above the sea at a point, None off the model or in a hole of it."""
        height = float(self.heights_m(np.array([lat_deg]), np.array([lon_deg]))[0])
        return None if math.isnan(height) else height

    def heights_m(self, lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ground's heights at points, interpolated between the model's four nearest; NaN where unknown."""
        column, row = self._pixels(lat_deg, lon_deg)
        height, width = self._raster.layout.height, self._raster.layout.width
        inside = (column >= -0.5) & (column <= width - 0.5) & (row >= -0.5) & (row <= height - 0.5)
        anyone = int(inside.argmax())  # stands in for those outside, whose heights are not used
        column, row = (np.where(inside, v, v[anyone]).clip(0, n - 1) for v, n in ((column, width), (row, height)))
        left, top = np.minimum(column.astype(int), max(0, width - 2)), np.minimum(row.astype(int), max(0, height - 2))
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        corners = self._values(
            np.concatenate([top, top, bottom, bottom]), np.concatenate([left, right, left, right])
        ).reshape(4, -1)
        along, down = column - left, row - top
        upper = corners[0] + along * (corners[1] - corners[0])
        lower = corners[2] + along * (corners[3] - corners[2])
        found: NDArray[np.float64] = np.where(inside, upper + down * (lower - upper), np.nan)
        return found

    def _pixels(
        self, lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the columns and rows of points; a height stands in the middle of its pixel."""
        found = self._georeference
        x, y = (lon_deg, lat_deg) if found.geographic else utm(lat_deg, lon_deg, found.epsg or 0)
        x0, across_x, down_x, y0, across_y, down_y = found.transform
        area = across_x * down_y - down_x * across_y
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged model puts every point outside
            column = ((x - x0) * down_y - (y - y0) * down_x) / area - 0.5
            row = ((y - y0) * across_x - (x - x0) * across_y) / area - 0.5
        return column, row

    def _values(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """Return the model's own heights; NaN in its holes, and where a piece cannot be decoded."""
        if self._patch is not None:
            top, left, patch = self._patch
            inside = rows.min() >= top and columns.min() >= left
            if inside and rows.max() < top + patch.shape[0] and columns.max() < left + patch.shape[1]:
                kept: NDArray[np.float64] = patch[rows - top, columns - left].astype(np.float64)
                return kept
        layout = self._raster.layout
        segments = rows // layout.segment_height * layout.across + columns // layout.segment_width
        values = np.full(len(rows), np.nan)
        for index in np.unique(segments).tolist():
            here = segments == index
            try:
                piece = self._raster.segment(index)
            except SourceError:
                continue
            values[here] = piece[rows[here] % layout.segment_height, columns[here] % layout.segment_width, 0]
        return self._without_holes(values)

    def _without_holes(self, values: NDArray[Any]) -> NDArray[Any]:
        hole = (values < LOWEST_M) | (values > HIGHEST_M)
        if self._raster.layout.nodata is not None:
            hole |= values == self._raster.layout.nodata
        values[hole] = np.nan
        return values

    def _keep_patch(self, pose: Pose, range_m: float) -> None:
        """Decode the part of the model within reach of a camera, once until it leaves that part's middle."""
        north_m, east_m = metres_per_degree(pose.lat_deg)
        sides = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * range_m
        column, row = self._pixels(pose.lat_deg + sides[:, 0] / north_m, pose.lon_deg + sides[:, 1] / east_m)
        layout = self._raster.layout
        top, bottom = max(0, int(row.min()) - 1), min(layout.height, int(row.max()) + 3)
        left, right = max(0, int(column.min()) - 1), min(layout.width, int(column.max()) + 3)
        if self._patch is not None:
            kept_top, kept_left, patch = self._patch
            rows_kept = kept_top <= top and bottom <= kept_top + patch.shape[0]
            if rows_kept and kept_left <= left and right <= kept_left + patch.shape[1]:
                return
        down, across = (bottom - top) // 2, (right - left) // 2
        top, bottom = max(0, top - down), min(layout.height, bottom + down)
        left, right = max(0, left - across), min(layout.width, right + across)
        self._patch = None
        if top < bottom and left < right and (bottom - top) * (right - left) <= _MOST_PATCH_PX:
            with suppress(SourceError):  # a damaged piece is a hole, looked for one by one
                read = self._raster.read(top, left, bottom, right, (0,))[:, :, 0].astype(np.float32)
                self._patch = top, left, self._without_holes(read)

    def eye_m(self, pose: Pose, ground_m: float) -> tuple[float, float] | None:
        """Return a camera's height above the sea and its error, or None where the model does not reach.

        ``ground_m`` is how much higher than the take-off point the ground is said to be.
        """
        below_m = self.height_m(pose.lat_deg, pose.lon_deg)
        if below_m is None:
            return None
        unsure_m = math.hypot(ALTITUDE_ERROR_M, TERRAIN_ERROR_M)
        if pose.height_m is None:
            return None if pose.altitude_m is None else (pose.altitude_m, unsure_m)
        if pose.ground_m is not None:
            return pose.ground_m + pose.height_m, ALTITUDE_ERROR_M
        if pose.height_above == "ground":
            return below_m + pose.height_m, TERRAIN_ERROR_M
        if self.takeoff_m is not None:
            return self.takeoff_m + pose.height_m, TERRAIN_ERROR_M
        # Without a take-off point: the altitude, else as if it had taken off from below.
        eye_m = below_m + pose.height_m - ground_m if pose.altitude_m is None else pose.altitude_m
        return eye_m, unsure_m

    def hits(
        self, pose: Pose, eye_m: float, rays: list[Vector], range_m: float
    ) -> list[tuple[float, float, float, bool]] | None:
        """Return where rays (north, east, down) first meet the ground: (north_m, east_m, its height, cut).

        A ray that meets none within ``range_m`` is cut there. None where the model has no height on a ray's way.
        """
        self._keep_patch(pose, range_m)
        directions = np.array(rays)
        level = np.hypot(directions[:, 0], directions[:, 1])
        with np.errstate(divide="ignore"):
            reach = np.minimum(
                np.where(level > 0, range_m / level, np.inf),
                np.where(directions[:, 2] > 0, self._deepest_m(eye_m) / directions[:, 2], np.inf),
            )
        heights = self._above(pose, eye_m, directions, np.linspace(0, 1, _STEPS)[None, :] * reach[:, None])
        below = heights <= 0
        met: NDArray[np.bool_] = np.asarray(below.any(axis=1))
        first = np.where(met, below.argmax(axis=1), _STEPS - 1)
        if np.isnan(heights[np.arange(_STEPS)[None, :] <= first[:, None]]).any():
            return None
        ray, before = np.arange(len(rays)), np.maximum(first - 1, 0)
        near, far = before / (_STEPS - 1) * reach, first / (_STEPS - 1) * reach
        over, under = heights[ray, before], heights[ray, first]
        for _ in range(_REFINED):
            share = np.where(over > under, over / np.maximum(over - under, 1e-9), 1.0).clip(0.0, 1.0)
            middle = near + (far - near) * share
            height = self._above(pose, eye_m, directions, middle[:, None])[:, 0]
            below_ground = (height <= 0) | ~met
            near, over = np.where(below_ground, near, middle), np.where(below_ground, over, height)
            far, under = np.where(below_ground & met, middle, far), np.where(below_ground & met, height, under)
        share = np.where(over > under, over / np.maximum(over - under, 1e-9), 1.0).clip(0.0, 1.0)
        far = np.where(met, near + (far - near) * share, far)
        ground_m = eye_m - far * directions[:, 2]
        north, east = far * directions[:, 0], far * directions[:, 1]
        return [
            (n, e, g, not m) for n, e, g, m in zip(north.tolist(), east.tolist(), ground_m.tolist(), met, strict=True)
        ]

    def _deepest_m(self, eye_m: float) -> float:
        """Return how far below the camera the lowest ground within reach is, and a little more."""
        if self._patch is None or np.isnan(self._patch[2]).all():
            return _DEEPEST_M
        return max(1.0, min(_DEEPEST_M, eye_m - float(np.nanmin(self._patch[2])) + 1.0))

    def _above(
        self, pose: Pose, eye_m: float, directions: NDArray[np.float64], slant: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return how far above the ground the points of rays are, ``[rays, points]``."""
        north_m, east_m = metres_per_degree(pose.lat_deg)
        lat = pose.lat_deg + slant * directions[:, 0:1] / north_m
        lon = pose.lon_deg + slant * directions[:, 1:2] / east_m
        ground = self.heights_m(lat.ravel(), lon.ravel()).reshape(slant.shape)
        above: NDArray[np.float64] = eye_m - slant * directions[:, 2:3] - ground
        return above
