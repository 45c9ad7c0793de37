"""Attitudes as unit quaternions: turning, composing and interpolating them.

A quaternion is (w, x, y, z) and turns a body's axes (forward, right, down) into north, east, down.
"""

from __future__ import annotations

import math

from overflight.runtime.pose.record import Attitude

Quaternion = tuple[float, float, float, float]
Vector = tuple[float, float, float]


def to_quaternion(attitude: Attitude) -> Quaternion:
    """Turn yaw, pitch, roll (Z, Y, X) into a unit quaternion."""
    yaw, pitch, roll = (math.radians(angle) / 2 for angle in (attitude.yaw_deg, attitude.pitch_deg, attitude.roll_deg))
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def from_quaternion(q: Quaternion) -> Attitude:
    """Turn a unit quaternion into yaw in [0, 360), pitch and roll; straight up or down, yaw has it all."""
    w, x, y, z = q
    sine = max(-1.0, min(1.0, 2 * (w * y - z * x)))
    pitch = math.degrees(math.asin(sine))
    if abs(sine) > 1 - 1e-9:
        yaw, roll = math.copysign(1, sine) * -2 * math.atan2(x, w), 0.0
    else:
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        roll = math.degrees(math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)))
    return Attitude(math.degrees(yaw) % 360.0, pitch, roll)


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Apply ``b`` within the axes of ``a``: a camera's mount within the airframe."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Turn a vector in body axes into north, east, down."""
    w, x, y, z = q
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


def mounted(vehicle: Attitude, mount: Attitude) -> Attitude:
    """Return the attitude against the earth of a camera that is bolted to the airframe."""
    return from_quaternion(multiply(to_quaternion(vehicle), to_quaternion(mount)))


def slerp(a: Attitude, b: Attitude, share: float) -> Attitude:
    """Return the attitude ``share`` of the way from ``a`` to ``b`` along the shortest turn (Shoemake, 1985)."""
    qa, qb = to_quaternion(a), to_quaternion(b)
    dot = sum(m * n for m, n in zip(qa, qb, strict=True))
    sign = -1.0 if dot < 0 else 1.0
    angle = math.acos(min(1.0, abs(dot)))
    if angle < 1e-6:
        wa, wb = 1 - share, share
    else:
        wa, wb = (math.sin(s * angle) / math.sin(angle) for s in (1 - share, share))
    w, x, y, z = (wa * m + sign * wb * n for m, n in zip(qa, qb, strict=True))
    length = math.sqrt(w * w + x * x + y * y + z * z)
    return from_quaternion((w / length, x / length, y / length, z / length))
