"""From a graph to a TensorRT plan: strongly typed, the precision is what the graph says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from overflight.export.inspection import count, layers_of_engine, layers_of_log
from overflight.runtime.durable import write_atomically
from overflight.runtime.engines.tensorrt_messages import collector
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.engines.record import LayerCounts

    Report = Callable[[float], None]

LEVEL = 3  # of 5, the library's own default: higher levels try more tactics and take minutes more


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How a plan is built.

    ``profiles`` are the largest batch of each optimisation profile, in rising order: (8,) is one profile for 1 to 8,
    at its best for one frame; (1, 8) gives tiles a profile of their own. ``workspace`` is in bytes and limits what
    tactics may use. ``level`` is the builder's optimisation level.
    """

    workspace: int
    profiles: tuple[int, ...] = (8,)
    level: int = LEVEL

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """The smallest, best and largest batch of each profile."""
        starts = [1, *(most + 1 for most in self.profiles[:-1])]
        only = len(self.profiles) == 1
        return [(start, 1 if only else most, most) for start, most in zip(starts, self.profiles, strict=True)]


def check_profiles(profiles: tuple[int, ...]) -> None:
    """Raise EngineError unless the batches rise from 1 or more."""
    if not profiles or profiles[0] < 1 or any(first >= second for first, second in pairwise(profiles)):
        listed = ",".join(map(str, profiles))
        raise EngineError(f"profiles {listed}; expected rising batch sizes from 1, such as 1,8")


def build_plan(
    trt: Any,
    graph: Path,
    plan: Path,
    settings: PlanSettings,
    *,
    cache_path: Path | None = None,
    report: Report = lambda share: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> LayerCounts:
    """Build ``graph`` into ``plan`` and return the builder's list of layers, counted.

    ``trt`` is the library: TensorRT 10.3 to 11.4, or TensorRT for RTX, whose builder needs no GPU. ``cache_path`` keeps
    timings, so that a build that was stopped, or failed, resumes where it was. ``is_stopped`` is asked during the
    build. Raises EngineError with the library's own reason, KeyboardInterrupt when it was stopped.
    """
    check_profiles(settings.profiles)
    # The list of layers comes in one verbose message, at the end.
    logger = collector(trt, keep=("LayerType:",))
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise EngineError(
            f"{graph.name}: TensorRT {trt.__version__} refuses the graph ({' '.join(reasons.split())[:400]})"
        )
    config = _configure(trt, builder, network, settings)
    config.progress_monitor = monitor = _monitor(trt, report, is_stopped)
    cache = _load_cache(config, cache_path)
    built = builder.build_serialized_network(network, config)
    if cache_path is not None and cache is not None:
        write_atomically(cache_path, bytes(cache.serialize()))
    if monitor.stopped:
        raise KeyboardInterrupt
    if built is None:
        raise EngineError(
            f"{graph.name}: TensorRT {trt.__version__} could not build it with {settings.workspace >> 20} MB of "
            f"workspace ({logger.explain()}); close other programs, or use the other precision"
        )
    plan.write_bytes(built)
    return count(layers_of_log(logger.kept))


def inspect_file(trt: Any, plan: Path) -> LayerCounts:
    """Count the layers of a plan on this GPU. Raises EngineError when it cannot be loaded here."""
    logger = collector(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise EngineError(
            f"{plan}: TensorRT {trt.__version__} cannot load the plan it built ({logger.explain()}); check the driver"
        )
    return count(layers_of_engine(trt, engine))


def _configure(trt: Any, builder: Any, network: Any, settings: PlanSettings) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    # Without this limit the builder tries tactics that take all of a board's memory, which the processor shares.
    config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, settings.workspace)
    config.builder_optimization_level = settings.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    edges = tuple(network.get_input(0).shape)[1:]
    for smallest, best, largest in settings.shapes:
        profile = builder.create_optimization_profile()
        profile.set_shape("frames", (smallest, *edges), (best, *edges), (largest, *edges))
        config.add_optimization_profile(profile)
    return config


def _load_cache(config: Any, path: Path | None) -> Any:
    if path is None or not hasattr(config, "create_timing_cache"):
        return None
    content = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):  # of another version or board: start a new one
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _monitor(trt: Any, report: Report, is_stopped: Callable[[], bool]) -> Any:
    """Return a progress monitor. Phases nest; the share of the outermost is what people wait for.

    The library stops building when a step answers False; then ``stopped`` is True.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # a trampoline class: without this the process crashes later
            self.stopped = False
            self._phases: dict[str, tuple[float, float, int]] = {}
            self._reported_ns = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            start, size, steps = self._phases.get(parent_phase or "", (0.0, 1.0, 1))
            self._phases[phase_name] = (start, size / steps if parent_phase else 1.0, max(1, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            start, size, steps = self._phases.get(phase_name, (0.0, 1.0, 1))
            if time.monotonic_ns() - self._reported_ns > 100_000_000:
                self._reported_ns = time.monotonic_ns()
                report(min(1.0, start + size * (step + 1) / steps))
            self.stopped = self.stopped or is_stopped()
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()
