"""The memory plan: what building an engine and flying with it take at their peak, predicted before either starts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.jetson import memory
from overflight.runtime.doctor.tower import Tower, read_tower
from overflight.runtime.errors import BundleError, MissingError

if TYPE_CHECKING:
    from overflight.jetson.board import Module
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Precision, Target

MIB, GIB = 1 << 20, 1 << 30
# Left free for the kernel, the camera's buffers and whatever else the board does.
MARGIN = 256 * MIB
WORKSPACE_MOST, WORKSPACE_LEAST = 2 * GIB, 64 * MIB
# Python, numpy, the runtime's modules, capture with OpenCV, and the frames in flight: measured on x86-64.
_PROCESS, _STREAM = 42 * MIB, 96 * MIB
# Kernel carve-outs of a board, and a headless JetPack at rest.
_CARVED, _AT_REST = 0.93, 1 * GIB
_STORED = {"fp32": 1.0, "fp16": 0.5, "int8": 0.27}


@dataclass(frozen=True)
class Cost:
    """What an engine's library takes: ``library`` at rest, ``weights`` times the constants, ``activations`` times the
    largest block's activations. ``measured`` is False where the numbers are assumptions that no board has confirmed."""

    library: int
    weights: float
    activations: float
    measured: bool


# ONNX Runtime 1.31 and OpenVINO 2026.4, fp32 towers of 88 to 1197 MiB on x86-64 (OpenVINO keeps a repacked copy).
# TensorRT: a CUDA context with the library's kernels, and the plan once in the file and once on the GPU while it loads.
FLYING: dict[Target, Cost] = {
    "onnxruntime-cpu": Cost(37 * MIB, 1.0, 4.8, measured=True),
    "onnxruntime-cuda": Cost(900 * MIB, 2.0, 4.8, measured=False),
    "openvino-cpu": Cost(123 * MIB, 2.0, 1.0, measured=True),
    "tensorrt": Cost(600 * MIB, 2.0, 2.0, measured=False),
}
# The fp32 graph as a file and as parsed, and the candidates' weights in both precisions that are timed.
_BUILDING = Cost(900 * MIB, 4.0, 4.0, measured=False)


@dataclass(frozen=True)
class MemoryPlan:
    """A prediction and what is there, in bytes. ``workspace`` is what TensorRT may use while it builds."""

    what: str
    peak: int
    usable: int
    measured: bool
    workspace: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the peak leaves the margin free."""
        return self.peak + MARGIN <= self.usable

    @property
    def said(self) -> str:
        """The numbers, for people."""
        basis = "measured" if self.measured else "assumed"
        space = "" if self.workspace is None else f" with {self.workspace // MIB} MiB of workspace"
        return f"{self.what} takes {_gib(self.peak)}{space} ({basis} costs), {_gib(self.usable)} can be used"


def plan_flight(tower: Tower, target: Target, precision: Precision, usable: int, batch: int = 1) -> MemoryPlan:
    """Predict the peak of a flight: loading the engine, and ``batch`` frames (tiles) at once.

    ``tower`` is the shape of the fp32 graph; the engine keeps its constants in ``precision``.
    """
    cost = FLYING[target]
    weights = tower.weight_bytes * (1.0 if target == "openvino-cpu" and precision == "fp16" else _STORED[precision])
    peak = (
        _PROCESS
        + _STREAM
        + cost.library
        + int(cost.weights * weights + cost.activations * tower.activation_bytes * batch)
    )
    return MemoryPlan(f"a flight on {target} {precision}", peak, usable, cost.measured)


def plan_build(tower: Tower, usable: int, swap: int = 0, batch: int = 1) -> MemoryPlan:
    """Predict the peak of building a TensorRT engine, and fit its workspace into what is left.

    Only the parsed graph may go to ``swap``; what the GPU uses cannot.
    """
    host = int(2.0 * tower.weight_bytes)
    rest = _BUILDING.library + int((_BUILDING.weights - 2.0) * tower.weight_bytes)
    rest += int(_BUILDING.activations * tower.activation_bytes * batch)
    usable += min(swap, host)
    spare = usable - MARGIN - host - rest
    workspace = max(min(spare, WORKSPACE_MOST), WORKSPACE_LEAST)
    return MemoryPlan("building a TensorRT engine", host + rest + workspace, usable, _BUILDING.measured, workspace)


def require(plan: MemoryPlan) -> MemoryPlan:
    """Refuse what does not fit, with the numbers. Raises MissingError."""
    if plan.fits:
        return plan
    raise MissingError(
        f"{plan.said}, {_gib(plan.peak + MARGIN - plan.usable)} too little; stop the desktop (sudo systemctl isolate "
        "multi-user.target), add swap for a build, or take a smaller tower or precision"
    )


def require_flight(bundle: Bundle) -> None:
    """Refuse a flight whose fp32 engine, which every other falls back to, would not fit here now.

    A graph that is not one of ours has no prediction, and is left to try. Raises MissingError.
    """
    with suppress(BundleError):
        tower = read_tower(bundle.file("image.onnx"))
        usable, _ = usable_here()
        if usable:  # 0 where the system does not tell
            require(plan_flight(tower, "onnxruntime-cpu", "fp32", usable))


def usable_here(root: Path = Path("/")) -> tuple[int, int]:
    """Return what can be used on this machine now, and its free swap, in bytes; a container's limit counts."""
    state = memory.read(root)
    if state is None:
        return 0, 0
    limit, used = memory.limit(root)
    return min(state.available, limit - used) if limit is not None else state.available, state.swap_free


def usable_on(module: Module) -> int:
    """Return what a headless board leaves, in bytes: its memory less carve-outs and JetPack at rest."""
    return int(module.memory_gb * GIB * _CARVED) - _AT_REST


def largest_build(towers: dict[str, Tower], module: Module) -> str | None:
    """Name the largest tower whose engine a board can build without swap."""
    fitting = [name for name, tower in towers.items() if plan_build(tower, usable_on(module)).fits]
    return max(fitting, key=lambda name: towers[name].weight_bytes, default=None)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
