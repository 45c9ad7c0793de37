"""Trust: frames that a decoder or a dead camera made up, recognised before anything is concluded from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.frame import Frame

Fault = Literal["black", "blown-out", "torn", "repeated", "frozen"]
Remark = Literal["clock-jump", "resized"]

_DARK = 12  # grey levels: sensor noise in the dark stays below, a night scene with one lamp does not
_BRIGHT = 250
_BRIGHT_SHARE = 0.95
_TORN_SHARE = 0.125  # of the height: concealment repeats one line from the break to the bottom
_FROZEN_FRAMES = 5  # a living sensor never sends the same bits twice; a codec repeats a frame or two

_CLOCK_JUMP_NS = 500_000_000  # a time service steers slower; a jump comes from GPS time found late, or from a hand


class ContinuityCheck:
    """Looks at what comes with the pixels: what changed is noted, and the frame can be used all the same."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._offset_ns: int | None = None

    def changes(self, frame: Frame) -> list[Remark]:
        """Name what is new about a frame: another size, or a wall clock that jumped against the monotonic one."""
        remarks: list[Remark] = []
        if frame.name is None and self._shape not in {None, frame.size}:  # stills come in many sizes
            remarks.append("resized")
        self._shape = frame.size
        if frame.captured_utc_ns is not None and frame.name is None:
            offset_ns = frame.captured_utc_ns - frame.captured_ns
            if self._offset_ns is not None and abs(offset_ns - self._offset_ns) > _CLOCK_JUMP_NS:
                remarks.append("clock-jump")
            self._offset_ns = offset_ns
        return remarks


class QualityCheck:
    """Looks at the engine's input ``[S, S, 3]``, where 65,000 pixels tell as much as two million."""

    def __init__(self, *, live: bool, decoder_reports: bool = False) -> None:
        self._live = live  # in a recording a still picture is a still picture
        self._decoder_reports = decoder_reports  # where it names damage, a flat lower edge is part of the picture
        self._previous: NDArray[np.uint8] | None = None
        self._repeats = 0

    def fault(self, pixels: NDArray[np.uint8]) -> Fault | None:
        """Name what is wrong with a frame, or None."""
        repeats = self._repetition(pixels) if self._live else 0
        if repeats >= _FROZEN_FRAMES:
            return "frozen"
        green = pixels[:, :, 1]
        if int(green.max()) <= _DARK and int(pixels.max()) <= _DARK:
            return "black"
        if np.count_nonzero(green >= _BRIGHT) >= _BRIGHT_SHARE * green.size:
            return "blown-out"
        if not self._decoder_reports and _is_torn(green):
            return "torn"
        return "repeated" if repeats else None

    def _repetition(self, pixels: NDArray[np.uint8]) -> int:
        """Count how often the same picture has come again: it was captured once, so to look again would lie."""
        if self._previous is not None and np.array_equal(self._previous, pixels):
            self._repeats += 1
        else:
            self._repeats = 0
            self._previous = pixels.copy() if self._previous is None else self._previous
            np.copyto(self._previous, pixels)
        return self._repeats


def _is_torn(grey: NDArray[np.uint8]) -> bool:
    """Whether the lower part repeats one line, or is one flat colour, under a part that does not."""
    lines = int(len(grey) * _TORN_SHARE)
    bottom = grey[-lines:].astype(np.int16)
    if int(np.abs(bottom - bottom[-1]).max()) > 2:
        return False
    top = grey[:lines].astype(np.int16)
    return int(np.abs(top - top[-1]).max()) > 2
