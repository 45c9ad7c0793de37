"""TensorRT's builder: the logic on a fake, the graphs on TensorRT for RTX, which parses and builds without a GPU.

Covers: export/derive.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.export.plan import Inspection, build_plan, inspect_plan
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import EngineError


@pytest.mark.parametrize("key", ["I/O Tensors", "Bindings"])
def test_a_plan_is_inspected_whatever_its_version_calls_things(key: str) -> None:
    """Layers are names or objects; fused attention and reformats are counted."""
    layers: list[Any] = [
        "_gemm_mha_v2_myl0",
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat"},
        {"Name": "fc"},
    ]
    reported = json.dumps({"Layers": layers, key: []})
    engine = SimpleNamespace(
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: reported)
    )
    trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))
    assert inspect_plan(trt, engine) == Inspection(layers=3, fused_attention=1, reformats=1)


class FakeMonitor:
    """The base of a progress monitor."""


class FakeLogger:
    """Says nothing."""

    ERROR = 1

    def __init__(self, level: int) -> None:
        self.level = level


class FakeLibrary:
    """A TensorRT whose parser, cache and builder return what the test sets."""

    __version__ = "10.3.0"
    IProgressMonitor = FakeMonitor
    Logger = FakeLogger
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)

    def __init__(self, *, parses: bool = True, builds: bool = True, fits: bytes = b"old") -> None:
        self.parses, self.builds, self.fits = parses, builds, fits
        self.caches: list[bytes] = []

    def Builder(self, logger: object) -> Any:
        config = SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: setattr(self, "workspace", size),
            create_timing_cache=lambda content: SimpleNamespace(content=content, serialize=lambda: content + b"+"),
            set_timing_cache=self.take_cache,
            add_optimization_profile=lambda profile: None,
        )
        self.config = config
        shapes: list[Any] = []
        self.shapes = shapes
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(
                flags=flags, get_input=lambda _: SimpleNamespace(shape=(-1, 8, 8, 3))
            ),
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *shape: shapes.append(shape)),
            build_serialized_network=self.build,
        )

    def take_cache(self, cache: Any, mismatch: bool) -> bool:
        assert mismatch is False
        self.caches.append(cache.content)
        return cache.content in (b"", self.fits)

    def build(self, network: Any, config: Any) -> bytes | None:
        assert network.flags == 2
        config.progress_monitor.phase_start("Building", None, 4)
        config.progress_monitor.phase_start("Tactics", "Building", 2)
        assert config.progress_monitor.step_complete("Tactics", 0)
        config.progress_monitor.phase_finish("Tactics")
        return b"plan" if self.builds else None

    def OnnxParser(self, network: object, logger: object) -> Any:
        return SimpleNamespace(
            parse_from_file=lambda path: self.parses,
            num_errors=1,
            get_error=lambda index: SimpleNamespace(desc=lambda: "Non-zero zero point\n  is not supported"),
        )


def test_a_plan_is_built_for_one_frame_and_for_tiles(tmp_path: Path) -> None:
    """Profile from 1 over 1 to the most; the timing cache is kept, and one of another board is begun anew."""
    library = FakeLibrary()
    cache = tmp_path / "timing"
    cache.write_bytes(b"old")
    shares: list[float] = []
    build_plan(
        library,
        Path("x.onnx"),
        tmp_path / "plan",
        max_batch=8,
        workspace=1 << 30,
        cache_path=cache,
        report=shares.append,
    )
    assert (tmp_path / "plan").read_bytes() == b"plan"
    assert library.shapes == [("frames", (1, 8, 8, 3), (1, 8, 8, 3), (8, 8, 8, 3))]
    assert cache.read_bytes() == b"old+"
    assert shares == [0.125]
    cache.write_bytes(b"of another board")
    build_plan(library, Path("x.onnx"), tmp_path / "plan", max_batch=8, workspace=1 << 30, cache_path=cache)
    assert library.caches[-2:] == [b"of another board", b""]


def test_a_graph_that_is_refused_or_does_not_fit_is_reported(tmp_path: Path) -> None:
    """In the parser's own words; with the memory that was not enough."""
    with pytest.raises(EngineError, match="Non-zero zero point is not supported"):
        build_plan(FakeLibrary(parses=False), Path("x.onnx"), tmp_path / "plan", max_batch=8, workspace=1 << 30)
    with pytest.raises(EngineError, match="1024 MB of workspace"):
        build_plan(FakeLibrary(builds=False), Path("x.onnx"), tmp_path / "plan", max_batch=8, workspace=1 << 30)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="the gate for graphs needs: pip install tensorrt-rtx")


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["image.onnx", "image.fp16.onnx", "image.int8.onnx"])
def test_every_graph_builds_strongly_typed(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path, graph: str) -> None:
    """The random tower's three graphs become plans, with progress from the builder."""
    shares: list[float] = []
    build_plan(
        rtx,
        calibrated_bundle.file(graph),
        tmp_path / "plan",
        max_batch=4,
        workspace=256 << 20,
        report=shares.append,
    )
    assert (tmp_path / "plan").stat().st_size > 10_000
    assert all(0 <= share <= 1 for share in shares)


@pytest.mark.slow
def test_an_asymmetric_graph_is_refused(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """Unsigned levels around 128 are for ONNX Runtime only; the parser's own words come through."""
    from overflight.export.derive import derive

    derive(calibrated_bundle.file("image.int8.onnx"), tmp_path / "u8.onnx", "static")
    with pytest.raises(EngineError, match=r"(?i)zero.point"):
        build_plan(rtx, tmp_path / "u8.onnx", tmp_path / "plan", max_batch=1, workspace=256 << 20)
    assert not (tmp_path / "plan").exists()


@pytest.mark.slow
def test_the_attention_preset_builds_too(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """Q/DQ pairs inside attention are accepted by the same rules."""
    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.halve import halve
    from overflight.calibration.quantise import attention_reads, quantise
    from overflight.calibration.ranges import extremes
    from overflight.calibration.recipe import Recipe, load_recipe

    recipe, smoothing = load_recipe(calibrated_bundle.directory / "calibration")
    tower = TowerGraph.open(calibrated_bundle.file("image.onnx"))
    reached = extremes(tower, np.zeros((1, 32, 32, 3), np.uint8) + np.arange(32, dtype=np.uint8)[:, None])
    scales = {pair: reached[name] / 127 for pair, name in attention_reads(tower, 16, 16).items()}
    preset = Recipe(1, recipe.tower, recipe.products, scales, (), {})
    (tmp_path / "image.onnx").write_bytes(halve(quantise(tower, preset, smoothing)).encoded())
    build_plan(rtx, tmp_path / "image.onnx", tmp_path / "plan", max_batch=1, workspace=256 << 20)
    assert (tmp_path / "plan").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_base_256_builds(rtx: Any, base_256_graph: Path, tmp_path: Path, precision: str) -> None:
    """SigLIP B/16-256 at full size, random weights: both quantised graphs are accepted and become plans."""
    from overflight.calibration.clip import half
    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.halve import halve
    from overflight.calibration.quantise import eligible, quantise
    from overflight.calibration.recipe import ProductRecipe, Recipe

    tower = TowerGraph.open(base_256_graph)
    if precision == "int8":
        rows = tuple(ProductRecipe(one.name, half(0.05), "max", 0, 0) for one in eligible(tower))
        tower = quantise(tower, Recipe(1, "7" * 64, rows, {}, (), {}), {})
    (tmp_path / "image.onnx").write_bytes(halve(tower).encoded())
    build_plan(rtx, tmp_path / "image.onnx", tmp_path / "plan", max_batch=8, workspace=1 << 30)
    megabytes = (tmp_path / "plan").stat().st_size / 1e6
    assert megabytes < (220 if precision == "fp16" else 130)
