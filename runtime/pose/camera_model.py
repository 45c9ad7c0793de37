"""The camera: its angles of view and how it is carried."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import UsageError
from overflight.runtime.pose.attitude import mounted
from overflight.runtime.pose.record import Attitude

if TYPE_CHECKING:
    from overflight.runtime.pose.record import Pose

FILM_DIAGONAL_MM = 43.2666  # of the 36 x 24 mm that "35 mm equivalent" refers to
NADIR_DEG = -80.0  # steeper than this, the picture lies under the aircraft whatever its heading


class CameraModel(msgspec.Struct, frozen=True):
    """Angles of view in degrees; without ``vfov_deg`` the pixels are square.

    ``gimbal_deg`` is the pitch at which a levelled gimbal is held, facing the nose; ``mount_deg`` the pitch at which
    the camera is bolted to the airframe, tilting with it. Either is used only where the telemetry says nothing of the
    gimbal. ``ground_m`` is the height of the ground above the take-off point.
    """

    hfov_deg: float
    vfov_deg: float | None = None
    gimbal_deg: float | None = None
    mount_deg: float | None = None
    ground_m: float = 0.0

    def __post_init__(self) -> None:
        for name, angle in (("hfov", self.hfov_deg), ("vfov", self.vfov_deg)):
            if angle is not None and not 0.1 <= angle < 179.0:
                raise UsageError(f"camera {name}={angle:g}: expected degrees between 0.1 and 179; give {name}=DEGREES")

    @classmethod
    def parse(cls, text: str) -> CameraModel:
        """Read ``hfov=71.6,vfov=56.8,gimbal=-90,ground=12``; ``f35=24,aspect=4:3`` may stand for the angles."""
        values: dict[str, str] = {}
        for part in text.split(","):
            name, equals, value = part.strip().partition("=")
            if not equals or name not in {"hfov", "vfov", "gimbal", "mount", "ground", "f35", "aspect"}:
                raise UsageError(
                    f"camera {part.strip()!r}: expected hfov, vfov, f35, aspect, gimbal, mount, ground=NUMBER"
                )
            values[name] = value
        try:
            numbers = {name: float(value) for name, value in values.items() if name != "aspect"}
            wide, _, high = values.get("aspect", "4:3").partition(":")
            aspect = float(wide) / float(high)
        except (ValueError, ZeroDivisionError) as error:
            raise UsageError(f"camera {text!r}: {error}; write numbers, as in hfov=71.6,vfov=56.8") from error
        if "f35" in numbers:
            numbers["hfov"], numbers["vfov"] = angles_of_f35(numbers.pop("f35"), aspect)
        if "hfov" not in numbers:
            raise UsageError(f"camera {text!r}: no angle of view; add hfov=DEGREES, or f35=MILLIMETRES")
        return cls(**{name + ("_m" if name == "ground" else "_deg"): value for name, value in numbers.items()})

    def tangents(self, width: int, height: int, zoom: float = 1.0) -> tuple[float, float]:
        """Return the tangents of half the angles, across and down, for a picture of that size and digital zoom."""
        across = math.tan(math.radians(self.hfov_deg) / 2) / zoom
        if self.vfov_deg is None:
            return across, across * height / width
        return across, math.tan(math.radians(self.vfov_deg) / 2) / zoom

    def attitude(self, pose: Pose) -> Attitude | None:
        """Return where the camera looks, against the earth; None where a part of that is not known."""
        if pose.gimbal is not None:
            return pose.gimbal
        if self.mount_deg is not None:
            return mounted(pose.vehicle, Attitude(0.0, self.mount_deg, 0.0)) if pose.vehicle is not None else None
        yaw_deg = pose.vehicle.yaw_deg if pose.vehicle is not None else pose.heading_deg
        if self.gimbal_deg is None or yaw_deg is None:
            return None
        return Attitude(yaw_deg, self.gimbal_deg, 0.0)

    def looks_down(self, pose: Pose) -> bool:
        """Say whether the picture lies under the aircraft although the heading is not known."""
        return pose.gimbal is None and self.gimbal_deg is not None and self.gimbal_deg <= NADIR_DEG


def angles_of_f35(f35_mm: float, aspect: float = 4 / 3) -> tuple[float, float]:
    """Return (hfov_deg, vfov_deg) of a 35-mm-equivalent focal length, which compares diagonals (CIPA DCG-001).

    A 16:9 picture is taken for what drones make of it, a crop of the full width of a 4:3 sensor.
    """
    if not f35_mm > 0 or not aspect > 0:
        raise UsageError(f"camera f35={f35_mm:g}, aspect={aspect:g}: expected both above 0")
    sensor = 4 / 3 if aspect > 1.7 else aspect
    width_mm = FILM_DIAGONAL_MM * sensor / math.hypot(sensor, 1.0)
    across = width_mm / 2 / f35_mm
    return 2 * math.degrees(math.atan(across)), 2 * math.degrees(math.atan(across / aspect))


def hfov_of(focal: float, width: float) -> float:
    """Return the angle across a picture, from a focal length and the picture's width in one unit."""
    return 2 * math.degrees(math.atan(width / 2 / focal))
