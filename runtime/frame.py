"""A frame: a picture, and when and where it was captured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Union

from overflight.runtime.planes import Planes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from overflight.runtime.pose.camera_model import CameraModel
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.window import Window

ChannelOrder = Literal["rgb", "bgr"]
Picture = Union["NDArray[np.uint8]", Planes]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as its source delivered it.

    ``picture`` is uint8 ``[height, width, 3]`` in ``order``, or a decoder's planes; it is not copied, and a live source
    may reuse it once the frame has been observed. ``captured_ns`` is when the picture was taken, on the monotonic
    clock, as far as the source tells, else when it reached this process: ages and intervals are measured from it.
    ``captured_utc_ns`` is the same since the epoch, None for a recording that does not tell. ``media_ns`` is the
    position in a recording, None where it has no time stamps; ``name`` is the file a still came from, ``dropped`` what
    was lost just before this frame, by reason. ``window`` is where the frame lies in a larger picture. ``pose``
    and ``camera`` are what a live stream's own metadata says of where its camera was and how it looked.
    """

    picture: Picture
    number: int
    captured_ns: int
    captured_utc_ns: int | None = None
    order: ChannelOrder = "rgb"
    media_ns: int | None = None
    name: str | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    window: Window | None = None
    pose: Pose | None = None
    camera: CameraModel | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture in colour, uint8 ``[height, width, 3]`` in ``order``; made anew from planes at each call."""
        if not isinstance(self.picture, Planes):
            return self.picture
        colours = self.picture.rgb()
        return colours[:, :, ::-1] if self.order == "bgr" else colours

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in stored pixels."""
        height, width = self.picture.shape[:2]
        return width, height

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height in square pixels: what a camera's field of view spans."""
        width, height = self.size
        aspect = self.picture.pixel_aspect if isinstance(self.picture, Planes) else 1.0
        return round(width * aspect), height
