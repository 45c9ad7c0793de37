"""Geotagger: what the flight loop asks where a frame was taken and what ground it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import UsageError
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.footprint import WHOLE, Tile, locate
from overflight.runtime.pose.source import LIVE, STILLS, Poses, open_poses
from overflight.runtime.pose.stills import read_camera

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.event import Event
    from overflight.runtime.frame import Frame
    from overflight.runtime.pose.autopilot import Autopilot
    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.records import Observation


class Geotagger:
    """Telemetry and a camera, joined. Without a camera there are poses and no places."""

    def __init__(
        self, poses: Poses, camera: CameraModel | None, stills: Path | None, vehicle: Autopilot | None
    ) -> None:
        self.vehicle = vehicle
        self._poses = poses
        self._camera = camera
        self._stills = stills

    @classmethod
    def open(cls, pose: str, camera: str | None = None, *, directory: Path | None = None) -> Geotagger:
        """Open ``--pose`` and ``--camera``; ``directory`` is where stills lie. Raises what their readers raise.

        Without ``--camera``, stills tell their lens themselves.
        """
        vehicle = None
        if pose.startswith(LIVE):
            from overflight.runtime.pose.autopilot import Address, Autopilot

            vehicle = Autopilot(Address.parse(pose))
        if pose == STILLS and directory is None:
            raise UsageError("--pose stills: the source is no folder of stills; give a telemetry file or address")
        poses = open_poses(pose, directory=directory, vehicle=vehicle)
        return cls(poses, CameraModel.parse(camera) if camera else None, directory if pose == STILLS else None, vehicle)

    @property
    def refused(self) -> tuple[str, ...]:
        """What of the telemetry could not be used, one line each."""
        return self._poses.refused

    def locate(self, frame: Frame, tile: Tile = WHOLE) -> tuple[Pose | None, Place | None]:
        """Return where the camera was, and what ground the frame, or a tile of it, shows."""
        pose = self._poses.of(frame)
        if pose is None:
            return None, None
        height, width = frame.pixels.shape[:2]
        camera = self._camera
        if camera is None and self._stills is not None and frame.name is not None:
            camera = read_camera(self._stills / frame.name, (width, height))
        return pose, None if camera is None else locate(pose, camera, (width, height), tile)

    def observe(self, frame: Frame, observation: Observation) -> Observation:
        """Return the observation with its frame's pose and place."""
        pose, place = self.locate(frame)
        return msgspec.structs.replace(observation, pose=pose, place=place)

    def attach(self, event: Event, observation: Observation) -> Event:
        """Return the event with the pose and place of the observation that caused it."""
        return msgspec.structs.replace(event, pose=observation.pose, place=observation.place)

    def close(self) -> None:
        """Let a live connection go."""
        if self.vehicle is not None:
            self.vehicle.close()
