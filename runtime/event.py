"""An event: a decision that began, changed or ended, as every link and file carries it."""

from __future__ import annotations

from typing import Literal

import msgspec

from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.record import Pose

EventType = Literal["begin", "change", "end"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step in the life of a decision.

    ``id`` names the decision: it is the same from begin to end and unique across flights (``<flight>-<number>``).
    ``sequence`` counts its steps from 0, so ``(id, sequence)`` names one message for ever: whoever receives it twice
    may drop the second. ``started_utc_ns`` is the capture time of the frame it began with, ``utc_ns`` and ``frame``
    those of this step. ``score`` is the label's best score so far, in [0, 1]. ``incident`` joins the decisions that
    speak of one thing at one place, across passes.
    """

    id: str
    type: EventType
    label: str
    started_utc_ns: int
    utc_ns: int
    frame: int
    score: float
    sequence: int = 0
    flight: str = ""
    group: str | None = None
    pose: Pose | None = None
    place: Place | None = None
    incident: str | None = None
    bank: str = ""
    engine: str = ""
    name: str | None = None

    @property
    def key(self) -> str:
        """Name of this one message, the same however often it is sent."""
        return f"{self.id}/{self.sequence}"
