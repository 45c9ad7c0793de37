"""Metres on the ellipsoid: moving a point and measuring between two, for the reach of one flight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEMI_MAJOR_M = 6378137.0  # WGS-84
FLATTENING = 1 / 298.257223563
ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)


def offset(lat_deg: float, lon_deg: float, north_m: float, east_m: float) -> tuple[float, float]:
    """Move a point over WGS-84 by metres north and east; within 2 km and 70° of latitude true to 0.05 m.

    Meridian and normal radii of curvature at the mean latitude (Snyder, Map Projections, 1987, p. 24) and the
    meridians' convergence to second order.
    """
    meridian_m, normal_m = _radii_m(lat_deg)
    phi = math.radians(lat_deg)
    end_deg = lat_deg + math.degrees(north_m / meridian_m - east_m**2 * math.tan(phi) / (2 * meridian_m * normal_m))
    end_deg = max(-90.0, min(90.0, end_deg))
    _, normal_m = _radii_m(end_deg)
    circle_m = max(1.0, normal_m * math.cos(math.radians(end_deg)))
    return end_deg, (lon_deg + math.degrees(east_m / circle_m) + 180.0) % 360.0 - 180.0


def distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Metres between two (lat, lon) points of one flight, by the radii of curvature at their middle."""
    meridian_m, normal_m = _radii_m((a[0] + b[0]) / 2)
    turn = (b[1] - a[1] + 180.0) % 360.0 - 180.0
    north_m = math.radians(b[0] - a[0]) * meridian_m
    return math.hypot(north_m, math.radians(turn) * normal_m * math.cos(math.radians((a[0] + b[0]) / 2)))


def beside(lon_deg: float, near_deg: float) -> float:
    """Return a longitude as the number within 180° of another: one piece across the date line, unchanged elsewhere."""
    return lon_deg - 360.0 * round((lon_deg - near_deg) / 360.0)


def metres_per_degree(lat_deg: float) -> tuple[float, float]:
    """Return the metres of one degree of latitude and of longitude."""
    meridian_m, normal_m = _radii_m(lat_deg)
    return math.radians(meridian_m), math.radians(normal_m * math.cos(math.radians(lat_deg)))


def utm(
    lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64], epsg: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (easting, northing) in a zone of UTM on WGS 84, by Krüger's series to the fourth order (1912).

    True to a millimetre within 3,900 km of the zone's meridian.
    """
    south, zone = epsg >= 32700, epsg % 100
    n = FLATTENING / (2 - FLATTENING)
    radius_m = SEMI_MAJOR_M / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    alpha = (n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180, 13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440,
             61 * n**3 / 240 - 103 * n**4 / 140, 49561 * n**4 / 161280)  # fmt: skip
    phi, lam = np.radians(lat_deg), np.radians(lon_deg - (zone * 6 - 183))
    root = math.sqrt(ECCENTRICITY_2)
    t = np.sinh(np.arctanh(np.sin(phi)) - root * np.arctanh(root * np.sin(phi)))
    xi, eta = np.arctan2(t, np.cos(lam)), np.arctanh(np.sin(lam) / np.hypot(1, t))
    north = xi + sum(a * np.sin(2 * j * xi) * np.cosh(2 * j * eta) for j, a in enumerate(alpha, start=1))
    east = eta + sum(a * np.cos(2 * j * xi) * np.sinh(2 * j * eta) for j, a in enumerate(alpha, start=1))
    return 500_000 + 0.9996 * radius_m * east, (10_000_000 if south else 0) + 0.9996 * radius_m * north


def from_utm(
    easting_m: NDArray[np.float64], northing_m: NDArray[np.float64], epsg: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (latitude, longitude) in degrees of points in a zone of UTM on WGS 84: ``utm`` the other way round.

    Krüger's series back to the conformal latitude, then Newton's method for the geographic one (Karney 2011, eq. 19).
    """
    south, zone = epsg >= 32700, epsg % 100
    n = FLATTENING / (2 - FLATTENING)
    radius_m = 0.9996 * SEMI_MAJOR_M / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    beta = (n / 2 - 2 * n**2 / 3 + 37 * n**3 / 96 - n**4 / 360, n**2 / 48 + n**3 / 15 - 437 * n**4 / 1440,
            17 * n**3 / 480 - 37 * n**4 / 840, 4397 * n**4 / 161280)  # fmt: skip
    north = (northing_m - (10_000_000 if south else 0)) / radius_m
    east = (easting_m - 500_000) / radius_m
    xi = north - sum(b * np.sin(2 * j * north) * np.cosh(2 * j * east) for j, b in enumerate(beta, start=1))
    eta = east - sum(b * np.cos(2 * j * north) * np.sinh(2 * j * east) for j, b in enumerate(beta, start=1))
    conformal = np.sin(xi) / np.hypot(np.sinh(eta), np.cos(xi))
    root, tau = math.sqrt(ECCENTRICITY_2), conformal / (1 - ECCENTRICITY_2)
    for _ in range(3):
        sigma = np.sinh(root * np.arctanh(root * tau / np.hypot(1, tau)))
        found = tau * np.hypot(1, sigma) - sigma * np.hypot(1, tau)
        slope = (1 + (1 - ECCENTRICITY_2) * tau**2) / ((1 - ECCENTRICITY_2) * np.hypot(1, tau))
        tau = tau + (conformal - found) / np.hypot(1, found) * slope
    return np.degrees(np.arctan(tau)), _wrapped(np.degrees(np.arctan2(np.sinh(eta), np.cos(xi))) + zone * 6 - 183)


def _wrapped(lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    return (lon_deg + 180.0) % 360.0 - 180.0


def _radii_m(lat_deg: float) -> tuple[float, float]:
    w2 = 1 - ECCENTRICITY_2 * math.sin(math.radians(lat_deg)) ** 2
    return SEMI_MAJOR_M * (1 - ECCENTRICITY_2) / w2**1.5, SEMI_MAJOR_M / math.sqrt(w2)
