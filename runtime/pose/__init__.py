"""Where the camera was: poses, tracks of them through time, and the readers that bring them."""

from __future__ import annotations

from overflight.runtime.pose.record import Attitude, Pose

__all__ = ["Attitude", "Pose"]
