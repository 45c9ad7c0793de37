"""The hover gate: frames that show what the last one showed are skipped, and what that costs is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AUDIT = 10  # every so many similar frames one is judged all the same
_CELL = 8  # pixels: the mean of a cell hardly knows the sensor's noise, and a person is larger


class SimilarityReport(msgspec.Struct, frozen=True):
    """What a gate did: of ``seen`` frames ``skipped`` were not judged; of ``audited`` similar ones that were judged all
    the same, ``agreed`` got the label that had been kept for them."""

    seen: int
    skipped: int
    audited: int
    agreed: int

    @property
    def skipped_share(self) -> float:
        """The share of frames that were not judged."""
        return self.skipped / self.seen if self.seen else 0.0

    @property
    def agreement(self) -> float | None:
        """The share of audited frames whose label the gate had right, None before the first."""
        return self.agreed / self.audited if self.audited else None


class SimilarityFilter:
    """Compares the engine's input ``[S, S, 3]`` with the last one that was judged, cell by cell.

    A frame is similar when no cell's mean differs by more than ``levels`` grey levels: the largest counts, because one
    thing that appears changes few cells.
    """

    def __init__(self, levels: float) -> None:
        self._levels = levels
        self._kept: NDArray[np.float32] | None = None
        self._label: str | None = None
        self._now: NDArray[np.float32] | None = None
        self._similar = 0
        self._auditing = False
        self._seen = self._skipped = self._audited = self._agreed = 0

    def skips(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether a frame need not be judged; of those that must, pass the label to ``judged``."""
        self._seen += 1
        self._now = _cells(pixels)
        similar = self._kept is not None and float(np.abs(self._now - self._kept).max()) <= self._levels
        self._similar = self._similar + 1 if similar else 0
        self._auditing = similar and self._similar % AUDIT == 0
        if similar and not self._auditing:
            self._skipped += 1
            return True
        return False

    def evaluated(self, label: str | None) -> None:
        """Take the label that the frame let through last was given."""
        if self._auditing:
            self._audited += 1
            self._agreed += label == self._label
        self._label = label
        self._kept = self._now

    @property
    def report(self) -> SimilarityReport:
        """What it did so far."""
        return SimilarityReport(self._seen, self._skipped, self._audited, self._agreed)


def _cells(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean green of each cell: green carries most of the light, and one channel costs a third."""
    side = max(1, len(pixels) // _CELL)
    size = len(pixels) // side
    green = pixels[: side * size, : side * size, 1].reshape(side, size, side * size)
    rows = green.sum(axis=1, dtype=np.uint16)
    cells: NDArray[np.float32] = rows.reshape(side, side, size).sum(axis=2, dtype=np.float32) / np.float32(size * size)
    return cells
