"""What a comparison of two dates holds; ``station/schemas/changes.schema.json`` is its published schema."""

from __future__ import annotations

from typing import Literal

import msgspec

from overflight.station.changes.register import Registration

SCHEMA = 1


class TileChange(msgspec.Struct, frozen=True, kw_only=True):
    """One tile: its score, whether it is changed, and its label at both dates (None is "unknown").

    ``flip`` says that both labels are known and differ in a changed tile. ``ring`` is its ground in degrees, empty
    where not known; ``left_px`` and ``top_px`` are pixels of the first picture.
    """

    row: int
    column: int
    score: float
    changed: bool
    before: str | None
    after: str | None
    flip: bool
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    ring: tuple[tuple[float, float], ...]
    area_m2: float | None


class Limits(msgspec.Struct, frozen=True):
    """Where the limits of the score come from; ``tiles`` counts the background tiles that set them.

    ``false_alarm`` is the share of background tiles above ``high``, by construction.
    """

    high: float
    low: float
    false_alarm: float
    origin: Literal["pairs", "light", "pair"]
    tiles: int
    directions: int


class Hashes(msgspec.Struct, frozen=True):
    """SHA-256 of the model's tensors, the label bank and both sources, 64 hex digits each."""

    model: str
    bank: str
    before: str
    after: str


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Two dates of one ground, compared tile by tile.

    ``changed_area_m2`` and its error are absent where the ground sample distance is not known. ``missing_tiles`` were
    not known at both dates. ``flips`` counts changed tiles by (before, after).
    """

    schema: int
    before: str
    after: str
    model: str
    bank: str
    hashes: Hashes
    registration: Registration
    limits: Limits
    rows: int
    columns: int
    tiles: tuple[TileChange, ...]
    missing_tiles: int
    changed_tiles: int
    changed_share: float
    changed_area_m2: float | None
    area_error_m2: float | None
    flips: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...]
