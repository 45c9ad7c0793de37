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
    ``sequence`` counts its steps from 0, so ``(id, sequence)`` names one message: a receiver may drop a second copy.
    ``frame``, ``utc_ns`` and ``media_ns`` are those of the frame that caused this step, ``started_frame``,
    ``started_utc_ns`` and ``started_media_ns`` those of the frame it began with. A time of day or a position in a
    recording is None where the source does not tell it: it is never the time of processing. ``lasted_ns`` is how long
    the decision has lasted by the source's own clock, None for stills without a time. ``score`` is the label's best
    score so far, in [0, 1]. ``group`` is the label's group in the bank that the decision began with. ``incident`` joins
    the decisions about one thing at one place, across passes.
    """

    id: str
    type: EventType
    label: str
    started_utc_ns: int | None
    utc_ns: int | None
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
    started_frame: int | None = None
    started_media_ns: int | None = None
    media_ns: int | None = None
    lasted_ns: int | None = None

    @property
    def key(self) -> str:
        """Name of this one message, the same however often it is sent."""
        return f"{self.id}/{self.sequence}"
