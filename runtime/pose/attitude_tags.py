"""Attitudes in a still's XMP: what each maker writes, turned into one convention, and what is refused as not measured.

DJI, Autel, Parrot and Skydio count a camera's pitch from the horizon, -90 straight down. Pix4D's scheme (``Camera:``),
which senseFly, Sentera, MicaSense and Parrot's mapping cameras follow, counts it from straight down, 90 at the horizon;
some Autel cameras write the scheme's name with the horizon's count, so a negative pitch of theirs is read as that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.runtime.pose.attitude import from_quaternion, multiply, to_quaternion
from overflight.runtime.pose.record import Attitude

if TYPE_CHECKING:
    from overflight.runtime.pose.tag_values import TagValues

# Of each maker the names of yaw, pitch and roll: the camera's, counted from the horizon, and the airframe's.
_CAMERA = (
    ("dji:GimbalYawDegree", "dji:GimbalPitchDegree", "dji:GimbalRollDegree"),
    ("autel:GimbalYawDegree", "autel:GimbalPitchDegree", "autel:GimbalRollDegree"),
    (
        "skydio:CameraOrientationNED/Yaw",
        "skydio:CameraOrientationNED/Pitch",
        "skydio:CameraOrientationNED/Roll",
    ),
    ("skydio:GimbalYawDegree", "skydio:GimbalPitchDegree", "skydio:GimbalRollDegree"),
    ("parrot:CameraYawDegree", "parrot:CameraPitchDegree", "parrot:CameraRollDegree"),
)
_VEHICLE = (
    ("dji:FlightYawDegree", "dji:FlightPitchDegree", "dji:FlightRollDegree"),
    ("autel:FlightYawDegree", "autel:FlightPitchDegree", "autel:FlightRollDegree"),
    ("skydio:VehicleOrientationNED/Yaw", "skydio:VehicleOrientationNED/Pitch", "skydio:VehicleOrientationNED/Roll"),
    ("parrot:DroneYawDegree", "parrot:DronePitchDegree", "parrot:DroneRollDegree"),
)
_PIX4D = ("camera:Yaw", "camera:Pitch", "camera:Roll")
NOSE_DEG = 5.0  # how far a gimbal that does not pan may stand from the nose


def vehicle_attitude(values: TagValues) -> Attitude | None:
    """Return the airframe's attitude of the first maker that writes it in full."""
    return next((found for names in _VEHICLE if (found := _attitude(values, names)) is not None), None)


def camera_attitude(values: TagValues, vehicle: Attitude | None, make: str) -> Attitude | None:
    """Return where the camera looks, or None where nothing that was measured says it."""
    found = next((found for names in _CAMERA if (found := _attitude(values, names)) is not None), None)
    if found is None:
        scheme = _attitude(values, _PIX4D)
        if scheme is None:
            return None
        # Autel and cameras that call themselves "Camera" write negative pitches, as if counted from the horizon.
        from_horizon = scheme.pitch_deg < 0 and make.lower().startswith(("autel", "camera"))
        found = scheme if from_horizon else _from_nadir(scheme)
    if not measured(found, vehicle):
        nose = "the flight's yaw is not known" if vehicle is None else f"the flight's yaw is {vehicle.yaw_deg:g}"
        values.note("gimbal", f"0, 0, 0 is not believed where {nose}; give --camera f35=MM,gimbal=DEGREES")
        return None
    return found


def measured(gimbal: Attitude, vehicle: Attitude | None) -> bool:
    """Say whether a gimbal's angles were measured: firmware that does not know them writes three exact zeros.

    Those are believed only of a gimbal that looks along a nose of known yaw.
    """
    if gimbal.yaw_deg or gimbal.pitch_deg or gimbal.roll_deg:
        return True
    if vehicle is None or not (vehicle.yaw_deg or vehicle.pitch_deg or vehicle.roll_deg):
        return False
    return abs((vehicle.yaw_deg + 180.0) % 360.0 - 180.0) <= NOSE_DEG


def _attitude(values: TagValues, names: tuple[str, str, str]) -> Attitude | None:
    """Return an attitude; roll is 0 where it is missing. A gimbal flipped past straight down has a roll of ±180°."""
    yaw, pitch, roll = (values.number(name) for name in names)
    if yaw is None or pitch is None:
        return None
    if abs(yaw) > 360.0 or abs(pitch) > 180.0 or abs(roll or 0.0) > 360.0:
        values.note(names[0].partition(":")[2], f"{yaw:g}, {pitch:g}, {roll or 0.0:g} are not angles")
        return None
    return Attitude(yaw % 360.0, pitch, roll or 0.0)


def _from_nadir(scheme: Attitude) -> Attitude:
    """Turn Pix4D's attitude, all zeros of which look straight down with the picture's top to the north."""
    down = to_quaternion(Attitude(0.0, -90.0, 0.0))
    return from_quaternion(multiply(to_quaternion(scheme), down))
