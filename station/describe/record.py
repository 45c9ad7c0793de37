"""What a description holds; ``station/schemas/description.schema.json`` is its published schema."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = 1
Dimension = Literal["space", "cover", "state", "season", "quality", "other"]
Reason = Literal["", "score", "margin", "background", "not measured", "too little texture", "one tile"]


class Alternative(msgspec.Struct, frozen=True):
    """Another value that was considered: its score, and its share inside the group where it has one."""

    value: str
    score: float | None
    share: float | None = None


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of a description.

    ``value`` is None where the field abstains; ``reason`` says why. For a group of labels ``score`` is the best label's
    own score (sigmoid of its logit; the share for a model that has no scores) and ``margin`` its lead in share over the
    second. For a measurement ``score`` is the measured number in ``unit`` and ``margin`` its distance from the nearest
    limit between two words. ``model``, ``bank`` and ``source`` are the first 16 hex digits of SHA-256 hashes; a
    measurement has no bank.
    """

    dimension: Dimension
    name: str
    value: str | None
    score: float | None
    margin: float | None
    alternatives: tuple[Alternative, ...]
    abstained: bool
    reason: Reason
    unit: str
    model: str
    bank: str
    source: str


class CoverShare(msgspec.Struct, frozen=True, kw_only=True):
    """The share of tiles whose label won; ``label`` None is "unknown".

    ``low`` and ``high`` bound the share with 95 % (Wilson's interval over the tiles). ``area_m2`` and its error (the
    interval and the ground sample distance, 95 %) are absent where the ground sample distance is not known.
    """

    label: str | None
    tiles: int
    share: float
    low: float
    high: float
    area_m2: float | None
    area_error_m2: float | None
    model: str
    bank: str
    source: str


class Ground(msgspec.Struct, frozen=True):
    """The ground sample distance, the share by which it may be wrong, and its origin."""

    gsd_m: float
    error: float
    origin: Literal["georeference", "telemetry", "given"]


class Hashes(msgspec.Struct, frozen=True):
    """SHA-256 of the model's tensors, the label bank and the source, 64 hex digits each."""

    model: str
    bank: str
    source: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A description of one picture, mosaic or flight.

    ``fields`` are the statements about the whole. ``cover`` is the composition by tiles, largest share first;
    ``missing_tiles`` counts those without enough picture. ``taken_utc`` and ``ground`` are absent where the source does
    not say. ``notes`` say what was assumed.
    """

    schema: int
    kind: Literal["picture", "mosaic", "flight"]
    source: str
    model: str
    bank: str
    hashes: Hashes
    width_px: int | None
    height_px: int | None
    frames: int
    taken_utc: str | None
    ground: Ground | None
    tiles: int
    tile_px: int | None
    missing_tiles: int
    fields: tuple[Field, ...]
    cover: tuple[CoverShare, ...]
    notes: tuple[str, ...]

    def field(self, name: str) -> Field | None:
        """Return a field by its name."""
        return next((one for one in self.fields if one.name == name), None)
