"""What the page learns of flights as they are now."""

from __future__ import annotations

from typing import Literal

import msgspec

from overflight.station.serve.shapes import LabelScore, Point


class LiveTile(msgspec.Struct, frozen=True):
    """A tile of the newest frame."""

    x: float
    y: float
    w: float
    h: float
    label: str | None
    score: float


class Health(msgspec.Struct, frozen=True):
    """One thing that is wrong: ``state`` is "bad" where observations suffer, else "warn"."""

    name: str
    state: Literal["bad", "warn"]
    text: str


class LiveEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision that began, and whether it has ended."""

    id: str
    label: str
    ended: bool
    score: float
    utc_ns: int | None = None
    lat_deg: float | None = None
    lon_deg: float | None = None
    picture: str | None = None


class Aircraft(msgspec.Struct, frozen=True, omit_defaults=True):
    """A flight as it is now. ``age_s`` is the time since its newest frame was taken, on this machine's clock.

    ``picture`` is the frame of the newest small picture; ``footprint`` is (lon, lat). ``events`` are left out where
    they are those of the event before: a list of sixty would fill a slow link.
    """

    id: str
    name: str
    ended: bool
    frame: int | None = None
    picture: int | None = None
    label: str | None = None
    scores: tuple[LabelScore, ...] = ()
    tiles: tuple[LiveTile, ...] = ()
    age_s: float | None = None
    fps: float | None = None
    utc_ns: int | None = None
    lat_deg: float | None = None
    lon_deg: float | None = None
    height_m: float | None = None
    footprint: tuple[Point, ...] = ()
    dropped: int = 0
    bank: str | None = None
    health: tuple[Health, ...] = ()
    events: tuple[LiveEvent, ...] | None = None
