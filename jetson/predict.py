"""Predicted latency of a board that was not measured yet: operations and bytes over its published peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from overflight.jetson.board import modules

if TYPE_CHECKING:
    from overflight.jetson.board import Mode, Module

# The share of the dense fp16 peak that a published engine of this kind reaches at batch 1: NanoOWL's 95 and 25 frames a
# second (OWL-ViT B/32 and B/16) on an AGX Orin. Assumptions, to be replaced by records: the same share for int8, the
# share of the memory bandwidth, and the host's part of one launch of a captured graph.
COMPUTE_SHARES = (0.25, 0.35)
BANDWIDTH_SHARE = 0.75
LAUNCH_MS = 0.1

Arithmetic = Literal["fp16", "int8"]


@dataclass(frozen=True)
class Architecture:
    """An image tower as published: ``depth`` blocks of ``width`` over ``(side / patch)²`` tokens."""

    name: str
    side: int
    patch: int
    width: int
    depth: int
    inner: int

    @property
    def tokens(self) -> int:
        """The number of patches of a frame."""
        return (self.side // self.patch) ** 2

    @property
    def flops(self) -> int:
        """Operations per frame: two per weight and token, and both products of each attention (ViT, 2020)."""
        linear = 3 * self.patch**2 * self.width + self.depth * (4 * self.width**2 + 2 * self.width * self.inner)
        return 2 * self.tokens * linear + 4 * self.depth * self.tokens**2 * self.width

    @property
    def weight_bytes(self) -> int:
        """Constants in fp32: blocks, patches, positions, and the pooling head (another block without its keys)."""
        block = 4 * self.width**2 + 2 * self.width * self.inner
        return 4 * (block * (self.depth + 1) + (3 * self.patch**2 + self.tokens) * self.width)


TOWERS = (
    Architecture("B/16-256", 256, 16, 768, 12, 3072),
    Architecture("L/16-256", 256, 16, 1024, 24, 4096),
    Architecture("So400m/14-384", 384, 14, 1152, 27, 4304),
)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one frame: ``floor_ms`` is the bound at the published peaks, the others a predicted range."""

    floor_ms: float
    fast_ms: float
    slow_ms: float


def predict(module: Module, mode: Mode, arithmetic: Arithmetic, flops: int, weight_bytes: int) -> Latency:
    """Predict one frame of a tower with ``flops`` operations and ``weight_bytes`` bytes of fp32 constants.

    The roofline: max(operations / peak, bytes / bandwidth), where the peak is multiprocessors times clock times dense
    operations per clock, and the bytes are the constants in the engine's precision, read once.
    """
    per_clock = module.fp16_per_clock if arithmetic == "fp16" else module.int8_per_clock
    compute_s = flops / (module.sms * mode.gpu_mhz * 1e6 * per_clock)
    traffic_s = weight_bytes * (0.5 if arithmetic == "fp16" else 0.25) / (mode.bandwidth_gbs * 1e9)
    slow_ms, fast_ms = (
        max(compute_s / share, traffic_s / BANDWIDTH_SHARE) * 1e3 + LAUNCH_MS for share in COMPUTE_SHARES
    )
    return Latency(max(compute_s, traffic_s) * 1e3, fast_ms, slow_ms)


def table() -> str:
    """Write the table of jetson/README.md: the predicted range in ms, the floor in brackets, fp16 then int8."""
    heads = [f"{tower.name} {arithmetic}" for tower in TOWERS for arithmetic in ("fp16", "int8")]
    lines = [f"| board | mode | {' | '.join(heads)} |", f"|---|---|{'--:|' * len(heads)}"]
    lines += [
        f"| {module.name} | {mode.name} | {' | '.join(_cells(module, mode))} |"
        for module in modules()
        for mode in module.modes
    ]
    return "\n".join(lines)


def _cells(module: Module, mode: Mode) -> list[str]:
    kinds: tuple[Arithmetic, ...] = ("fp16", "int8")
    guesses = (predict(module, mode, kind, tower.flops, tower.weight_bytes) for tower in TOWERS for kind in kinds)
    return [f"{guess.fast_ms:.1f} to {guess.slow_ms:.1f} ({guess.floor_ms:.1f})" for guess in guesses]


if __name__ == "__main__":
    print(table())
