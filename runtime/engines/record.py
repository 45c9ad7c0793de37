"""The record of a built engine: what it was made from, its fidelity and its timing."""

from __future__ import annotations

import msgspec

from overflight.runtime.engines.engine import Precision, Target


class Agreement(msgspec.Struct, frozen=True):
    """How an engine decides with one label bank, against the reference.

    ``top1`` is the share of frames whose best label is the same. ``flips`` is the share of decisions that changed side:
    of the (frame, label) pairs that either of the two reports, those that only one reports. ``accuracy`` and
    ``reference_accuracy`` are shares of right best labels, where the truth is known.
    """

    bank: str
    sha256: str
    top1: float
    flips: float
    accuracy: float | None = None
    reference_accuracy: float | None = None


class Fidelity(msgspec.Struct, frozen=True):
    """An engine's answers on real frames against the fp32 reference's.

    ``variance_kept`` is 1 - Σ‖answer - reference‖² / Σ‖reference - mean reference‖²: embeddings of a tower lie in a
    narrow cone, so an engine that answers the same for every frame can still show a high cosine, but keeps no variance.
    ``frames`` is the SHA-256 of the frames.
    """

    samples: int
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    variance_kept: float
    agreement: tuple[Agreement, ...]
    frames: str


class FidelityLimits(msgspec.Struct, frozen=True):
    """What an engine must reach to be offered."""

    cosine_mean: float
    cosine_p1: float
    top1: float
    variance_kept: float


class FidelityVerdict(msgspec.Struct, frozen=True):
    """The judgement written next to an engine; ``reasons`` says what failed, or nothing."""

    passed: bool
    reasons: tuple[str, ...]
    gate: FidelityLimits
    fidelity: Fidelity | None = None


class DeviceState(msgspec.Struct, frozen=True):
    """What the device reported while an engine was timed: clocks in MHz before and after, and what limits them."""

    power_mode: str | None
    gpu_mhz: tuple[int | None, int | None]
    gpu_limit_mhz: int | None
    clocks_locked: bool | None
    hottest_c: float | None
    throttling: tuple[str, ...] = ()


class Timing(msgspec.Struct, frozen=True):
    """How long one call took on real frames, in nanoseconds: resized frames in, embeddings out, nothing else.

    ``device`` is None on computers that report neither clocks nor temperatures.
    """

    batch: int
    threads: int
    p50_ns: int
    p95_ns: int
    samples_ns: tuple[int, ...]
    device: DeviceState | None = None


class LayerCounts(msgspec.Struct, frozen=True):
    """What a builder made of a graph on this device.

    ``int8_products`` multiply int8 by int8. ``dequantised_weights`` are constant int8 levels that are turned into
    floats in every frame, so that their product runs in float. ``reformats`` only move or convert data.
    """

    layers: int
    fused_attention: int
    int8_products: int
    dequantised_weights: int
    reformats: int


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stored next to an engine in ``engine.json``.

    ``graph`` is the bundle's file it was made from. ``file`` is the engine's own file, or None when the bundle's graph
    itself runs; ``sha256`` is of whichever runs. ``variant`` tells apart engines of one target and precision.
    ``versions`` and ``device`` are what the engine was built with and for: another one must not run it. ``layers``,
    ``level`` and ``profiles`` are TensorRT's: what its builder made, how hard it tried, and the largest batch of each
    optimisation profile.
    """

    schema: int
    bundle: str
    target: Target
    precision: Precision
    variant: str
    graph: str
    graph_sha256: str
    file: str | None
    sha256: str
    size_bytes: int
    versions: dict[str, str]
    device: str
    max_batch: int
    built_utc: str
    build_s: float
    verdict: FidelityVerdict | None = None
    timing: Timing | None = None
    note: str = ""
    layers: LayerCounts | None = None
    level: int | None = None
    profiles: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The engine's name for people: target, precision and variant."""
        return engine_title(self.target, self.precision, self.variant)


def engine_title(target: Target, precision: Precision, variant: str) -> str:
    """Return an engine's name for people; float parts in bf16 are named, and stand for a half precision themselves."""
    parts = (target, variant) if (precision, variant) == ("fp16", "bf16") else (target, precision, variant)
    return " ".join(part for part in parts if part)
