"""What is written down: observations and the costs behind them, as one JSON line each."""

from __future__ import annotations

import msgspec

from overflight.runtime.filters.similarity import SimilarityReport
from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.record import Pose
from overflight.runtime.tiles import TileGrid
from overflight.runtime.window import Window

SCHEMA = 1


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
    """What one frame was judged to show.

    ``label`` is None when the frame shows none of the labels ("unknown"). ``age_ns`` is the time from capture to
    decision. ``dropped`` counts the frames lost since the previous observation, by reason. ``scores`` holds the best
    labels, best first. ``bank`` and ``engine`` are the hashes (first 16 hex digits) of what answered. ``pose`` and
    ``place`` are where the camera was and what ground it saw, where telemetry told; ``window`` is where the frame lies
    in the mosaic that it was cut from. ``tiles`` is what its pieces show, where they were looked at too.
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

    ``ended_utc_ns`` and ``ended_because`` are absent while a flight goes on, and for ever if its end was a power cut.
    ``observed`` and ``dropped`` (by reason) then stay at zero too: the journal has the truth. ``unrecorded`` counts
    what a full or failing disk did not take; ``device`` is absent off the device; ``gate`` is what skipping similar
    frames spared and cost; ``engine_note`` says how the engine was chosen, and that it was forced if it was. Hashes are
    SHA-256, 64 hex digits.
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
    unrecorded: dict[str, int] = {}
    device: DeviceSummary | None = None
    gate: SimilarityReport | None = None
    engine_note: str = ""
