"""Geotagging: where each frame was taken and what ground it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overflight.runtime.errors import UsageError
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.footprint import WHOLE, Tile, locate
from overflight.runtime.pose.source import LIVE, STILLS, Poses, open_poses

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.frame import Frame
    from overflight.runtime.pose.autopilot import Autopilot
    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.pose.terrain import Terrain


class Location(NamedTuple):
    """The camera's pose when a frame was taken and the ground it shows; None where it is not known."""

    pose: Pose | None
    place: Place | None


class Geotagger:
    """Joins telemetry and a camera model. Without a camera model there are poses and no places.

    ``autopilot`` is the live MAVLink connection that the poses come from, if any.
    """

    def __init__(
        self, poses: Poses, camera: CameraModel | None, autopilot: Autopilot | None, terrain: Terrain | None = None
    ) -> None:
        self.autopilot = autopilot
        self._poses = poses
        self._camera = camera
        self._terrain = terrain

    @classmethod
    def open(
        cls, pose: str, camera: str | None = None, *, directory: Path | None = None, terrain: str | None = None
    ) -> Geotagger:
        """Open ``--pose``, ``--camera`` and ``--terrain``; ``directory`` is where stills lie. Raises what they raise.

        Without ``--camera``, the lens is the one that stills and KLV describe.
        """
        autopilot = None
        if pose.startswith(LIVE):
            from overflight.runtime.pose.autopilot import Address, Autopilot

            autopilot = Autopilot(Address.parse(pose))
        if pose == STILLS and directory is None:
            raise UsageError("--pose stills: the source is no folder of stills; give a telemetry file or address")
        poses = open_poses(pose, directory=directory, vehicle=autopilot)
        model = None
        if terrain is not None:
            from overflight.runtime.pose.terrain import Terrain

            model = Terrain.open(terrain)
        return cls(poses, CameraModel.parse(camera) if camera else None, autopilot, model)

    @property
    def refused(self) -> tuple[str, ...]:
        """What of the telemetry could not be used, one line each."""
        return self._poses.refused

    def locate(self, frame: Frame, tile: Tile = WHOLE) -> Location:
        """Return the camera's pose and the ground that the frame, or a tile of it, shows."""
        pose = self._poses.of(frame)
        if pose is None:
            return Location(None, None)
        width, height = frame.display_size
        camera = self._camera or self._poses.camera(frame)
        if self._terrain is not None and self._terrain.takeoff_m is None and self._poses.takeoff is not None:
            self._terrain.takeoff_m = self._terrain.height_m(*self._poses.takeoff)
        if camera is None:
            return Location(pose, None)
        return Location(pose, locate(pose, camera, (width, height), tile, terrain=self._terrain))

    def close(self) -> None:
        """Close a live connection and the elevation model."""
        if self.autopilot is not None:
            self.autopilot.close()
        if self._terrain is not None:
            self._terrain.close()
