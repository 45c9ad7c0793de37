"""A frame: pixels, and when and where they were captured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from overflight.runtime.window import Window

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as its source delivered it.

    ``pixels`` is uint8 ``[height, width, 3]`` in ``order``; it is not copied, and a live source may reuse it once the
    frame has been observed. ``captured_ns`` is the monotonic clock when the frame reached this process, taken as early
    as the source allows: ages and intervals are measured from it. ``captured_utc_ns`` is when the picture was taken,
    since the epoch: the wall clock at arrival for a camera, None for a recording that does not tell. ``media_ns`` is
    the position in a recording, ``name`` the file a still came from, ``dropped`` what was lost just before this frame,
    by reason. ``window`` is where the frame lies in a larger picture that it was cut from.
    """

    pixels: NDArray[np.uint8]
    number: int
    captured_ns: int
    captured_utc_ns: int | None = None
    order: ChannelOrder = "rgb"
    media_ns: int | None = None
    name: str | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    window: Window | None = None
