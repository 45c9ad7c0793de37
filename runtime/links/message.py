"""What a link carries: an event, or the small picture that goes with one, and what can happen to it on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from overflight.runtime.event import Event

MessageKind = Literal["event", "thumbnail"]


@dataclass(frozen=True)
class Message:
    """One thing to deliver to one link. ``key`` is the same however often it is sent; ``picture`` is JPEG."""

    number: int
    kind: MessageKind
    event: Event
    picture: bytes = b""

    @property
    def key(self) -> str:
        """Permanent name of this message: a receiver recognises a repetition by it."""
        return self.event.key if self.kind == "event" else f"{self.event.key}/thumbnail"


class LinkDown(Exception):  # noqa: N818 - a state of the world, not an error of the program
    """The link does not carry just now; the message stays where it is and the link is tried again."""


class Refused(Exception):  # noqa: N818 - the receiver's answer
    """The receiver has the message and will not take it, now or later; the message is given up and counted."""


class Link(Protocol):
    """One way out. Every method is called from the link's own thread alone, and returns within seconds.

    ``overhead_bytes`` is what its framing adds to a payload; ``grace_s`` how long after `send` the other side may still
    turn out not to have the message, 0 where its word is good; ``refresh_s`` how often an event that goes on is sent
    again, or None where receivers remember.
    """

    overhead_bytes: int
    grace_s: float
    refresh_s: float | None

    def open(self) -> None:
        """Connect. Raises LinkDown."""
        ...

    def check(self) -> None:
        """See, while idle, whether the link still stands. Raises LinkDown."""
        ...

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the payload, ``brief`` for a thin link, or None where this link does not carry such a message."""
        ...

    def send(self, message: Message, payload: bytes) -> None:
        """Deliver, and return once the other side has it as far as the protocol can say. Raises LinkDown, Refused."""
        ...

    def close(self) -> None:
        """Say goodbye where the protocol has a word for it, and let go."""
        ...


class Brief(msgspec.Struct, omit_defaults=True):
    """An event for a thin link: what, how sure, when, and where to within a metre.

    ``utc_s`` is seconds since 1970, absent where the source does not tell the time.
    """

    id: str
    sequence: int
    type: str
    label: str
    score: float
    utc_s: float | None = None
    lat: float | None = None
    lon: float | None = None
    error_m: float | None = None
    incident: str | None = None


def brief(event: Event) -> Brief:
    """Shorten an event to what fits a thin link."""
    known = event.place or event.pose
    return Brief(
        event.id,
        event.sequence,
        event.type,
        event.label,
        round(event.score, 3),
        None if event.utc_ns is None else round(event.utc_ns / 1e9, 1),
        round(known.lat_deg, 6) if known else None,
        round(known.lon_deg, 6) if known else None,
        round(event.place.error_m, 1) if event.place else None,
        event.incident if event.incident != event.id else None,
    )
