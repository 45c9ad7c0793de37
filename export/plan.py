"""From a graph to a TensorRT plan: strongly typed, the precision is what the graph says."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Report = Callable[[float], None]

_LEVEL = 4  # of 5: tries more tactics than the default 3, the last step only costs time
_FUSED = re.compile(r"mha|fused_?attention|flash|myelin.*attention", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a built plan is made of: layers, how many attentions were fused, how many only move or convert data."""

    layers: int
    fused_attention: int
    reformats: int

    def summary(self) -> str:
        """The inspection for people."""
        return f"{self.layers} layers, {self.fused_attention} fused attention, {self.reformats} reformats"


def build_plan(
    trt: Any,
    graph: Path,
    plan: Path,
    *,
    max_batch: int,
    workspace: int,
    cache_path: Path | None = None,
    report: Report = lambda share: None,
) -> None:
    """Build ``graph`` into ``plan`` for batches of 1 to ``max_batch``, at its best for one frame.

    ``trt`` is the library: TensorRT 10.3 to 11.4, or TensorRT for RTX, whose builder needs no GPU. ``workspace`` is in
    bytes; ``cache_path`` keeps timings, so that an interrupted build goes on where it was. Raises EngineError with the
    parser's words for a graph that TensorRT refuses.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise EngineError(
            f"{graph.name}: TensorRT {trt.__version__} refuses the graph ({' '.join(reasons.split())[:400]})"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.builder_optimization_level = _LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = _monitor(trt, report)
    cache = _load_cache(config, cache_path)
    edges = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", (1, *edges), (1, *edges), (max_batch, *edges))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if cache_path is not None and cache is not None:
        write_atomically(cache_path, bytes(cache.serialize()))
    if built is None:
        raise EngineError(
            f"{graph.name}: TensorRT {trt.__version__} could not build it with {workspace >> 20} MB of workspace; "
            "close other programs, or build the other precision"
        )
    plan.write_bytes(built)


def inspect_plan(trt: Any, engine: Any) -> Inspection:
    """Read what the builder made of a graph. Versions name the same things differently, so it is read defensively."""
    inspector = engine.create_engine_inspector()
    described = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    layers = [layer if isinstance(layer, str) else json.dumps(layer) for layer in described.get("Layers", [])]
    return Inspection(
        layers=len(layers),
        fused_attention=sum(bool(_FUSED.search(layer)) for layer in layers),
        reformats=sum("reformat" in layer.lower() for layer in layers),
    )


def _load_cache(config: Any, path: Path | None) -> Any:
    if path is None or not hasattr(config, "create_timing_cache"):
        return None
    content = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):  # of another version or board: begin anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _monitor(trt: Any, report: Report) -> Any:
    """Return a progress monitor. Phases nest; the share of the outermost is what people wait for."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # a trampoline class: without this the process crashes later
            self._phases: dict[str, tuple[float, float, int]] = {}
            self._told_ns = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            start, size, steps = self._phases.get(parent_phase or "", (0.0, 1.0, 1))
            self._phases[phase_name] = (start, size / steps if parent_phase else 1.0, max(1, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            start, size, steps = self._phases[phase_name]
            if time.monotonic_ns() - self._told_ns > 100_000_000:
                self._told_ns = time.monotonic_ns()
                report(min(1.0, start + size * (step + 1) / steps))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()


def inspect_file(trt: Any, plan: Path) -> Inspection:
    """Inspect a plan on this GPU. Raises EngineError when it cannot be loaded here."""
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise EngineError(f"{plan}: TensorRT {trt.__version__} cannot load what it has just built; check the driver")
    return inspect_plan(trt, engine)
