"""The steps and what each proves. ``run.py`` runs each in a process of its own: ``python -m … STEP WORK BUNDLE``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from overflight.bench.device.comparison import next_to_torch
from overflight.bench.device.graphs import graph_of, write_graphs
from overflight.bench.device.outcome import Answer
from overflight.bench.device.pictures import hardware_scale, resize_4k
from overflight.runtime.errors import EngineError, MissingError, OverflightError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.bench.device.outcome import Figure
    from overflight.runtime.engines import Engine, Precision
    from overflight.runtime.engines.tensorrt import TensorRtEngine

    Step = Callable[[Path, Path | None], Answer]

ORDER = (1, 8, 1, 3, 8, 1)  # every batch after every other: a stale graph or context would answer for the wrong one
REPLAYS = 100
FRAMES = 1000
ENERGY_S = 30.0
_PROCESSOR_S = 20.0  # a processor takes minutes for a thousand frames
_WORKSPACE = 1 << 30
_LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.998, "int8-joined": 0.9, "int8-parted": 0.9}


def prepare(work: Path, bundle: Path | None) -> Answer:
    """Write the graphs in every precision."""
    sizes = write_graphs(work, bundle)
    return Answer(True, {f"{name} MB": round(size / 1e6, 1) for name, size in sizes.items()})


def doctor(work: Path, bundle: Path | None) -> Answer:
    """Check the machine; a warning is a figure, not a failure."""
    from overflight.runtime.bundle import default_bundle
    from overflight.runtime.doctor.checks import examine

    health = examine(bundle or default_bundle(), work)
    return Answer(True, {check.name: f"{check.verdict}: {check.found}" for check in health.checks})


def memory(*, mapped: bool) -> Answer:
    """Copy bytes through the GPU in a graph that is replayed; every replay must give the bytes of its turn."""
    from overflight.runtime.engines.cuda_memory import CudaMemory

    size = 1 << 20
    device = CudaMemory(mapped=mapped)
    try:
        source, target, stream, done = device.host(size), device.host(size), device.stream(), device.event()
        middle = device.device(size)

        def work() -> None:
            device.to_device(middle, source, size, stream)
            device.to_host(target, middle, size, stream)

        graph = device.capture(stream, work)
        wrong = 0
        for turn in range(REPLAYS):
            source.bytes[:] = np.random.default_rng(turn).integers(0, 256, size, np.uint8)
            device.launch(graph, stream)
            device.record(done, stream)
            device.wait(done)
            wrong += not np.array_equal(source.bytes, target.bytes)
    finally:
        device.close()
    return Answer(not wrong, {"gpu": device.name, "replays": REPLAYS, "wrong": wrong, "mapped": mapped})


def ort_cuda(work: Path, name: str) -> Answer:
    """Open ONNX Runtime on the GPU and embed in the batch order."""
    from overflight.runtime.engines.ort_cuda import CudaEngine

    engine = CudaEngine(graph_of(work, name), "0" * 64, "fp32" if name == "fp32" else "fp16")
    return _in_order(engine, work, name, {"graphs": engine.graphs, "onnxruntime": engine.info.version})


def build(work: Path, name: str) -> Answer:
    """Build a plan in a child process, and count what the builder made of it."""
    from overflight.export.plan import PlanSettings
    from overflight.export.plan_process import build_in_child
    from overflight.runtime.engines.gpu import gpu_name
    from overflight.runtime.engines.tensorrt import load_library

    version, gpu = load_library().__version__, gpu_name()
    began = time.monotonic()
    counts = build_in_child(
        graph_of(work, name), _plan(work, name), PlanSettings(_WORKSPACE), cache_path=work / "tensorrt.timing"
    )
    figures: dict[str, Figure] = {"gpu": gpu, "tensorrt": version, "build s": round(time.monotonic() - began, 1)}
    figures["plan MB"] = round(_plan(work, name).stat().st_size / 1e6, 1)
    return Answer(True, {**figures, **msgspec.structs.asdict(counts)})


def tensorrt(work: Path, name: str, *, graphs: bool, mapped: bool) -> Answer:
    """Run a plan in the batch order."""
    engine = _open_plan(work, name, graphs=graphs, mapped=mapped)
    answer = _in_order(engine, work, name, {"graphs": engine.graphs, "mapped": mapped})
    kept = engine.graphs == graphs
    return answer if kept else Answer(False, answer.figures, "a graph could not be captured")


def frames(work: Path, engine_name: str) -> Answer:
    """Embed a thousand single frames and record the clocks."""
    from overflight.jetson.nvidia_smi import read_any

    engine = _engine(work, engine_name)
    pictures: NDArray[np.uint8] = np.load(work / "frames.npy")
    samples: list[int] = []
    try:
        for turn in range(20 if _on_gpu(engine_name) else 1):
            engine.embed(pictures[turn % len(pictures)][None])
        before, until = read_any(), time.monotonic() + _PROCESSOR_S
        for turn in range(FRAMES):
            if not _on_gpu(engine_name) and time.monotonic() > until:
                break
            began = time.perf_counter_ns()
            engine.embed(pictures[turn % len(pictures)][None])
            samples.append(time.perf_counter_ns() - began)
        after = read_any()
    finally:
        engine.close()
    p50, p99 = np.percentile(samples, [50, 99]) / 1e6
    figures: dict[str, Figure] = {
        "frames": len(samples),
        "p50 ms": round(float(p50), 3),
        "p99 ms": round(float(p99), 3),
    }
    figures["provider"] = engine.info.provider
    for label, reading in (("before", before), ("after", after)):
        if reading is not None:
            figures[f"gpu MHz {label}"], figures[f"°C {label}"] = reading.gpu_mhz, reading.hottest_c
            figures["power mode"], figures["clocks locked"] = reading.power_mode, reading.clocks_locked
    return Answer(True, figures)


def capture_failure(work: Path) -> Answer:
    """Force a capture to fail: the answer must be kept, and graphs turned off."""
    from overflight.runtime.engines.cuda_memory import CudaMemory
    from overflight.runtime.engines.tensorrt import TensorRtEngine

    class Refusing(CudaMemory):
        def capture(self, stream: int, work: Callable[[], None]) -> int:
            def fail() -> None:
                work()
                raise EngineError("forced")

            return super().capture(stream, fail)

    engine = TensorRtEngine(_plan(work, "fp16"), "0" * 64, "fp16", memory=Refusing())
    answer = _in_order(engine, work, "fp16", {"graphs": engine.graphs})
    return Answer(answer.passed and not engine.graphs, answer.figures)


def torn_plan(work: Path) -> Answer:
    """Load half a plan: an error in one line, not a crash."""
    torn = work / "torn.plan"
    content = _plan(work, "fp16").read_bytes() if _plan(work, "fp16").is_file() else b""
    torn.write_bytes(content[: len(content) // 2])
    try:
        _open_plan(work, "", graphs=True, mapped=None, plan=torn).close()
    except EngineError as error:
        return Answer("\n" not in str(error), {"error": str(error)})
    return Answer(False, {}, "half a plan was loaded")


def interrupted_build(work: Path) -> Answer:
    """Stop a build at its first sign of progress: it must end soon, keep its timings and leave no plan."""
    from overflight.export.plan import PlanSettings
    from overflight.export.plan_process import build_in_child
    from overflight.runtime.engines.gpu import gpu_name
    from overflight.runtime.engines.tensorrt import load_library

    load_library(), gpu_name()
    plan, cache, asked = work / "interrupted.plan", work / "interrupted.timing", 0.0

    def interrupt(share: float) -> None:
        nonlocal asked
        asked = time.monotonic()
        raise KeyboardInterrupt

    try:
        build_in_child(graph_of(work, "fp16"), plan, PlanSettings(_WORKSPACE), cache_path=cache, report=interrupt)
    except KeyboardInterrupt:
        took = time.monotonic() - asked
        held = not plan.exists() and cache.exists()
        return Answer(held, {"ended after s": round(took, 1), "timings kept": cache.exists(), "plan": plan.exists()})
    return Answer(False, {}, "the build was not interrupted")


def energy(work: Path) -> Answer:
    """Run the fastest engine that works for half a minute with the meter on."""
    from overflight.bench.energy import Meter

    name = next(one for one in ENGINES if _can_open(work, one))
    engine, pictures = _engine(work, name), np.load(work / "frames.npy")
    meter, count, until = Meter(), 0, time.monotonic() + ENERGY_S
    meter.start()
    while time.monotonic() < until:
        engine.embed(pictures[count % len(pictures)][None])
        count += 1
    drawn = meter.stop()
    engine.close()
    figures: dict[str, Figure] = {"engine": name, "frames": count, "meter": drawn.meter, "throttled": drawn.throttled}
    if drawn.joules is not None:
        figures |= {"J": round(drawn.joules, 1), "mJ a frame": round(drawn.joules / count * 1e3, 2)}
    return Answer(True, figures)


ENGINES = ("tensorrt int8-parted", "tensorrt fp16", "onnxruntime-cuda fp16", "onnxruntime-cpu fp32")


def _with(step: Callable[..., Answer], **settings: Any) -> Step:
    """Return a step that needs the work folder only, with its settings."""
    return lambda work, bundle: step(work, **settings)


def _runs_of(name: str) -> dict[str, Step]:
    """Return the steps of one plan: graphs on and off, mapped and copied."""
    return {
        f"tensorrt {name}, {'graphs' if graphs else 'no graphs'}, {'mapped' if mapped else 'copied'}": _with(
            tensorrt, name=name, graphs=graphs, mapped=mapped
        )
        for graphs in (True, False)
        for mapped in (True, False)
    }


# In the order of what they are worth: the time may end before the last.
STEPS: dict[str, Step] = {
    "prepare": prepare,
    "doctor": doctor,
    "memory copied": lambda work, bundle: memory(mapped=False),
    "memory mapped": lambda work, bundle: memory(mapped=True),
    **{f"onnxruntime-cuda {name}": _with(ort_cuda, name=name) for name in ("fp32", "fp16")},
    "frames onnxruntime-cuda fp16": _with(frames, engine_name="onnxruntime-cuda fp16"),
    "build fp16": _with(build, name="fp16"),
    **_runs_of("fp16"),
    "frames tensorrt fp16": _with(frames, engine_name="tensorrt fp16"),
    "next to torch B/16-256": _with(next_to_torch, name="B/16-256"),
    "build int8-parted": _with(build, name="int8-parted"),
    **_runs_of("int8-parted"),
    "frames tensorrt int8-parted": _with(frames, engine_name="tensorrt int8-parted"),
    "capture failure": _with(capture_failure),
    "torn plan": _with(torn_plan),
    "energy": _with(energy),
    "next to torch L/16-256": _with(next_to_torch, name="L/16-256"),
    "build int8-joined": _with(build, name="int8-joined"),
    "interrupted build": _with(interrupted_build),
    "hardware scale": hardware_scale,
    "resize 4K": _with(resize_4k),
    "frames onnxruntime-cpu fp32": _with(frames, engine_name="onnxruntime-cpu fp32"),
}


def _plan(work: Path, name: str) -> Path:
    return work / f"{name}.plan"


def _open_plan(work: Path, name: str, *, graphs: bool, mapped: bool | None, plan: Path | None = None) -> TensorRtEngine:
    from overflight.runtime.engines.gpu import open_memory
    from overflight.runtime.engines.tensorrt import TensorRtEngine, load_library

    library, memory = load_library(), open_memory(mapped=mapped)
    path = plan or _plan(work, name)
    if not path.is_file():
        memory.close()
        raise MissingError(f"no plan of {name} was built")
    precision: Precision = "fp16" if name in ("fp16", "") else "int8"
    return TensorRtEngine(path, "0" * 64, precision, memory=memory, library=library, graphs=graphs)


def _engine(work: Path, engine_name: str) -> Engine:
    from overflight.runtime.engines.ort import OnnxRuntimeEngine
    from overflight.runtime.engines.ort_cuda import CudaEngine

    target, _, name = engine_name.partition(" ")
    match target:
        case "tensorrt":
            return _open_plan(work, name, graphs=True, mapped=None)
        case "onnxruntime-cuda":
            return CudaEngine(graph_of(work, name), "0" * 64, "fp16")
        case _:
            return OnnxRuntimeEngine(graph_of(work, name), "0" * 64)


def _can_open(work: Path, engine_name: str) -> bool:
    try:
        _engine(work, engine_name).close()
    except OverflightError:
        return False
    return True


def _on_gpu(engine_name: str) -> bool:
    return not engine_name.startswith("onnxruntime-cpu")


def _in_order(engine: Any, work: Path, name: str, figures: dict[str, Figure]) -> Answer:
    """Embed in the batch order: every answer near the reference, and equal however the frame was batched."""
    pictures, reference = np.load(work / "frames.npy"), np.load(work / "reference.npy")
    answers: dict[int, list[Any]] = {}
    try:
        for turn, count in enumerate(ORDER):
            rows = [(turn + row) % len(pictures) for row in range(count)]
            for row, found in zip(rows, np.array(engine.embed(pictures[rows])), strict=True):
                answers.setdefault(row, []).append(found)
    finally:
        engine.close()
    cosines = [float(found @ reference[row]) for row, several in answers.items() for found in several]
    apart = max(float(1 - found @ several[0]) for several in answers.values() for found in several)
    passed = min(cosines) >= _LEAST_COSINE[name] and apart < 1e-3
    return Answer(passed, {**figures, "least cosine": round(min(cosines), 6), "most apart": round(apart, 7)})


def main() -> None:
    """Run the step that the command line names and print its answer as the last line; exit 3 for what is absent."""
    step, work, bundle = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3] else None
    try:
        answer = STEPS[step](work, bundle)
    except (MissingError, ModuleNotFoundError) as error:  # cuda-bindings, or another package of a step
        print(msgspec.json.encode(Answer(False, {}, str(error))).decode())
        sys.exit(3)
    except OverflightError as error:
        answer = Answer(False, {}, str(error))
    print(msgspec.json.encode(answer).decode())


if __name__ == "__main__":
    main()
