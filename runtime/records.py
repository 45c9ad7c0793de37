"""What a flight records: observations and the costs behind them, as one JSON line each. See docs/formats.md."""

from __future__ import annotations

import msgspec

from overflight.runtime.filters.similarity import SimilarityReport
from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.record import Pose
from overflight.runtime.tiles import TileGrid
from overflight.runtime.window import Window

SCHEMA = 2  # of a flight directory
SKIPPED = {"fps": "fps", "duty": "duty", "similar": "similar", "paced": "fps", "resting": "duty"}
"""Reasons for which a frame was not evaluated because the user asked so; format 1 named two of them otherwise."""

_ABSENT = msgspec.Raw(b"null")


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """How well one label fits one frame.

    ``cosine`` is the raw similarity in [-1, 1]; ``score`` is sigmoid(exp(logit_scale)·cosine + logit_bias) of Zhai et
    al., "Sigmoid Loss for Language Image Pre-Training", 2023; ``share`` is the softmax inside the label's exclusive
    group, absent for a label that excludes no other.
    """

    label: str
    cosine: float
    score: float
    share: float | None = None


class Costs(msgspec.Struct, frozen=True):
    """Where the time of one observation went, in nanoseconds."""

    resize_ns: int
    engine_ns: int
    match_ns: int


class Observation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one frame was decided to show.

    ``label`` is the best label present, None for "unknown". ``captured_ns`` is the monotonic clock of the device when
    the frame arrived, ``captured_utc_ns`` when the picture was taken, ``media_ns`` its position in the recording; the
    last two are None where the source does not tell. ``age_ns`` is the time from capture to decision. ``dropped``
    counts the frames lost since the previous observation and ``skipped`` those that the user asked to skip, by reason.
    ``scores`` holds the best labels, best first. ``bank`` and ``engine`` are the first 16 hex digits of their hashes.
    ``pose`` and ``place`` are where the camera was and what ground it showed, if there is telemetry; ``window`` is
    where the frame lies in the mosaic that it was cut from; ``tiles`` is what its tiles show.
    """

    frame: int
    captured_ns: int
    age_ns: int
    label: str | None
    scores: tuple[Score, ...]
    costs: Costs
    bank: str
    engine: str
    dropped: dict[str, int] = {}
    captured_utc_ns: int | None = None
    media_ns: int | None = None
    name: str | None = None
    pose: Pose | None = None
    place: Place | None = None
    window: Window | None = None
    tiles: TileGrid | None = None
    skipped: dict[str, int] = {}

    @property
    def utc_ns(self) -> int | None:
        """When the picture was taken: the source's own time, else the telemetry's; None where neither tells."""
        return _utc_ns(self)

    @property
    def moment_ns(self) -> int | None:
        """When the picture was taken, on the clock that intervals are measured by."""
        return _moment_ns(self)


class Glance(msgspec.Struct):
    """An observation without scores and tiles, and with pose and place read on demand: what following events needs."""

    frame: int
    captured_ns: int
    bank: str
    engine: str
    captured_utc_ns: int | None = None
    media_ns: int | None = None
    name: str | None = None
    kept_pose: msgspec.Raw = msgspec.field(name="pose", default=_ABSENT)
    kept_place: msgspec.Raw = msgspec.field(name="place", default=_ABSENT)
    kept_window: msgspec.Raw = msgspec.field(name="window", default=_ABSENT)

    @property
    def pose(self) -> Pose | None:
        """Where the camera was."""
        return msgspec.json.decode(self.kept_pose, type=Pose | None)

    @property
    def place(self) -> Place | None:
        """What ground the frame showed."""
        return msgspec.json.decode(self.kept_place, type=Place | None)

    @property
    def window(self) -> Window | None:
        """Where the frame lies in the mosaic that it was cut from."""
        return msgspec.json.decode(self.kept_window, type=Window | None)

    @property
    def utc_ns(self) -> int | None:
        """When the picture was taken: the source's own time, else the telemetry's; None where neither tells."""
        return _utc_ns(self)

    @property
    def moment_ns(self) -> int | None:
        """When the picture was taken, on the clock that intervals are measured by."""
        return _moment_ns(self)


def _utc_ns(seen: Observation | Glance) -> int | None:
    if seen.captured_utc_ns is not None:
        return seen.captured_utc_ns
    return (seen.pose.utc_ns or None) if seen.pose is not None else None


def _moment_ns(seen: Observation | Glance) -> int | None:
    """Return the position in a recording, the time in a still's Exif, the monotonic clock for a live source.

    None for a still or a recording without a time: how fast it was processed says nothing about the world.
    """
    if seen.media_ns is not None:
        return seen.media_ns
    if seen.name is not None or seen.window is not None:
        return seen.captured_utc_ns
    return None if seen.captured_utc_ns is None else seen.captured_ns  # a live source always knows the time of day


def split_skipped(observation: Observation) -> Observation:
    """Return an observation of format 1, which counted skipped frames as dropped, as format 2 has it."""
    if SKIPPED.keys().isdisjoint(observation.dropped):
        return observation
    dropped, skipped = partition_skipped(observation.dropped)
    return msgspec.structs.replace(observation, dropped=dropped, skipped={**observation.skipped, **skipped})


def partition_skipped(counts: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Part counts by reason into frames lost and frames skipped because the user asked."""
    dropped = {reason: count for reason, count in counts.items() if reason not in SKIPPED}
    return dropped, {SKIPPED[reason]: count for reason, count in counts.items() if reason in SKIPPED}


def encode_line(record: msgspec.Struct) -> bytes:
    """Write one record as a JSON line, newline included."""
    return msgspec.json.encode(record) + b"\n"


class DeviceSummary(msgspec.Struct, frozen=True):
    """How the device fared: what held it back, and the energy it took (None where no rail tells)."""

    readings: int
    hindered: tuple[str, ...]
    joules: float | None
    joules_per_observation: float | None


class FlightRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``flight.json`` says: one run over one source.

    ``ended_utc_ns`` and ``ended_because`` are absent during a flight, and stay absent if a power cut ended it.
    ``observed``, ``dropped`` and ``skipped`` (by reason) then stay at zero too: the journal has the truth.
    ``unrecorded`` counts what a full or failing disk did not take; ``device`` is absent off the device; ``gate`` is
    what skipping similar frames saved and cost; ``engine_note`` says how the engine was chosen, and whether it was
    forced. Hashes are SHA-256, 64 hex digits.
    """

    schema: int
    source: str
    host: str
    versions: dict[str, str]
    model: str
    bundle: str
    engine: str
    engine_sha256: str
    bank: str
    bank_sha256: str
    labels: tuple[str, ...]
    started_utc_ns: int
    ended_utc_ns: int | None = None
    ended_because: str | None = None
    observed: int = 0
    dropped: dict[str, int] = {}
    skipped: dict[str, int] = {}
    unrecorded: dict[str, int] = {}
    device: DeviceSummary | None = None
    gate: SimilarityReport | None = None
    engine_note: str = ""
