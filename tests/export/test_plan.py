"""TensorRT's builder: the logic on a fake, the graphs on TensorRT for RTX, which parses and builds without a GPU.

Covers: export/derive.py, export/inspection.py, export/plan_process.py, runtime/engines/tensorrt_messages.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.export.derive import derive
from overflight.export.inspection import Layer, count, explain, layers_of_engine, layers_of_log
from overflight.export.plan import PlanSettings, build_plan
from overflight.export.plan_process import build_in_child
from overflight.runtime.bundle import Bundle
from overflight.runtime.engines.record import LayerCounts
from overflight.runtime.errors import EngineError

TILES = PlanSettings(1 << 30)
SMALL = PlanSettings(256 << 20, (4,))


def inspected(layers: list[Any], key: str = "I/O Tensors") -> list[Layer]:
    text = json.dumps({"Layers": layers, key: []})
    engine = SimpleNamespace(create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: text))
    return layers_of_engine(SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1)), engine)


@pytest.mark.parametrize("key", ["I/O Tensors", "Bindings"])
def test_a_plan_is_inspected_whatever_its_version_calls_things(key: str) -> None:
    """Layers are names or objects; types stand alone (11.x) or in a format's name (10.x)."""
    levels = {"Name": "w", "Format/Datatype": "Row major linear INT8 format"}
    layers: list[Any] = [
        "_gemm_mha_v2_myl0",
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat"},
        {
            "Name": "fc",
            "LayerType": "gemm",
            "Inputs": [levels],
            "Constants": [levels],
            "Outputs": [{"Datatype": "Half"}],
        },
        {"Name": "w", "LayerType": "kgen", "Constants": [{"Datatype": "Int8"}], "Outputs": [{"Datatype": "Half"}]},
    ]
    assert count(inspected(layers, key)) == LayerCounts(4, 1, 1, 1, 1)


def test_the_log_of_a_builder_lists_its_layers() -> None:
    """Lines of TensorRT for RTX 1.7: a joined product whose weight is dequantised, and an int8 product."""
    half = "Strides: [2304,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }"
    levels = "Dimensions: [768,3072], Strides: [3072,1], Datatype: Int8, Format: (Linear) Row major linear format }"
    message = "\n".join(
        [
            "Layers:",
            f"Name: __myl_CastMulCast_147, LayerType: kgen, Inputs: [], Constants: [ {{ Name: a, {half}, {{ Name: b, "
            f"{levels}], Outputs: [ {{ Name: c, {half}], TacticName: __myl, StreamId: 0, Metadata: [ONNX Layer: q]",
            f"Name: __myl_CastMulFc_148, LayerType: runtime_fusion, Inputs: [ {{ Name: d, {levels}, {{ Name: c, "
            f"{half}], Constants: [], Outputs: [ {{ Name: e, {half}], TacticName: , StreamId: 0",
            f"Name: image.block11.mlp.up_156, LayerType: gemm, Inputs: [ {{ Name: d, {levels}], Constants: [ {{ "
            f"Name: f, {levels}], Outputs: [ {{ Name: e, {half}], TacticName: , StreamId: 0",
            "Name: _gemm_mha_v2_myl0_152, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: ",
            "",
            "I/O Tensors:",
        ]
    )
    counts = count(layers_of_log(["Registering layer: x", message]))
    assert counts == LayerCounts(layers=4, fused_attention=1, int8_products=1, dequantised_weights=1, reformats=0)
    assert explain(counts, 12) == (
        "4 layers, 1 of 12 attentions fused, 1 int8 products, 0 reformats; 1 weights are dequantised in every frame; "
        "11 attentions run unfused, which is slower"
    )


class FakeMonitor:
    """The base of a progress monitor."""


class FakeLogger:
    """The base of a logger."""

    INTERNAL_ERROR, ERROR, WARNING = range(3)


class FakeLibrary:
    """A TensorRT whose parser, cache and builder return what the test sets."""

    __version__ = "10.3.0"
    IProgressMonitor = FakeMonitor
    ILogger = FakeLogger
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE=0, TACTIC_DRAM=4)
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)

    def __init__(self, *, parses: bool = True, builds: bool = True, fits: bytes = b"old") -> None:
        self.parses, self.builds, self.fits = parses, builds, fits
        self.caches: list[bytes] = []

    def Builder(self, logger: Any) -> Any:
        self.logger = logger
        self.pools: dict[int, int] = {}
        config = SimpleNamespace(
            set_memory_pool_limit=self.pools.__setitem__,
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
        going = config.progress_monitor.step_complete("Tactics", 0)
        config.progress_monitor.phase_finish("Tactics")
        if not self.builds:
            self.logger.log(FakeLogger.ERROR, "Tactic Device request: 4229MB Available: 2658MB.")
        return b"plan" if self.builds and going else None

    def OnnxParser(self, network: object, logger: object) -> Any:
        return SimpleNamespace(
            parse_from_file=lambda path: self.parses,
            num_errors=1,
            get_error=lambda index: SimpleNamespace(desc=lambda: "Non-zero zero point\n  is not supported"),
        )


def test_a_plan_is_built_for_one_frame_and_for_tiles(tmp_path: Path) -> None:
    """One profile from 1 over 1 to the most; the timing cache is kept, and another board's is not used."""
    library = FakeLibrary()
    cache = tmp_path / "timing"
    cache.write_bytes(b"old")
    shares: list[float] = []
    build_plan(library, Path("x.onnx"), tmp_path / "plan", TILES, cache_path=cache, report=shares.append)
    assert (tmp_path / "plan").read_bytes() == b"plan"
    assert library.shapes == [("frames", (1, 8, 8, 3), (1, 8, 8, 3), (8, 8, 8, 3))]
    assert library.pools == {0: 1 << 30, 4: 1 << 30}, "tactics must not take what the workspace may not"
    assert library.config.builder_optimization_level == 3
    assert cache.read_bytes() == b"old+"
    assert shares == [0.125]
    cache.write_bytes(b"of another board")
    build_plan(library, Path("x.onnx"), tmp_path / "plan", TILES, cache_path=cache)
    assert library.caches[-2:] == [b"of another board", b""]


def test_tiles_can_have_a_profile_of_their_own(tmp_path: Path) -> None:
    """``--profile 1,8``: each at its best for its largest batch."""
    library = FakeLibrary()
    build_plan(library, Path("x.onnx"), tmp_path / "plan", PlanSettings(1 << 30, (1, 8), 5))
    assert [[shape[0] for shape in shapes[1:]] for shapes in library.shapes] == [[1, 1, 1], [2, 8, 8]]
    assert library.config.builder_optimization_level == 5
    for wrong in ((), (0,), (8, 1), (4, 4)):
        with pytest.raises(EngineError, match="expected rising batch sizes"):
            build_plan(library, Path("x.onnx"), tmp_path / "plan", PlanSettings(1 << 30, wrong))


def test_a_graph_that_is_refused_or_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """In the parser's own words; with the memory that was not enough and the builder's reason."""
    with pytest.raises(EngineError, match="Non-zero zero point is not supported"):
        build_plan(FakeLibrary(parses=False), Path("x.onnx"), tmp_path / "plan", TILES)
    with pytest.raises(EngineError, match=r"1024 MB of workspace \(Tactic Device request: 4229MB Available: 2658MB"):
        build_plan(FakeLibrary(builds=False), Path("x.onnx"), tmp_path / "plan", TILES)


def test_a_build_that_is_stopped_keeps_its_timings(tmp_path: Path) -> None:
    """The monitor answers False, the library stops, and nothing but the timing cache is written."""
    cache = tmp_path / "timing"
    with pytest.raises(KeyboardInterrupt):
        build_plan(FakeLibrary(), Path("x.onnx"), tmp_path / "plan", TILES, cache_path=cache, is_stopped=lambda: True)
    assert cache.read_bytes() == b"+"
    assert not (tmp_path / "plan").exists()


def write_library(folder: Path, body: str) -> str:
    """Write a module that stands in for TensorRT in a child process; returns its name."""
    folder.joinpath("rough_tensorrt.py").write_text(f"import os, sys\n__version__ = '10.3.0'\n{body}\n")
    return "rough_tensorrt"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 11)", r"x.onnx: the builder was ended by SIGSEGV"),
        ("os.kill(os.getpid(), 9)", r"ended by SIGKILL, probably for want of memory"),
        ("print('noise'); sys.exit('libnvinfer.so.10 is broken')", r"ended with code 1; libnvinfer.so.10 is broken"),
        ("raise ImportError('no libcudart')", r"ended with code 1; ImportError: no libcudart"),
    ],
)
def test_a_builder_that_crashes_costs_one_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    """Its process ends, ours gets one line with its last words."""
    monkeypatch.syspath_prepend(str(tmp_path))
    library = write_library(tmp_path, body)
    with pytest.raises(EngineError, match=message):
        build_in_child(tmp_path / "x.onnx", tmp_path / "plan", TILES, library=library)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="the gate for graphs needs: pip install tensorrt-rtx")


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["image.onnx", "image.fp16.onnx", "image.int8.onnx"])
def test_every_graph_builds_strongly_typed(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path, graph: str) -> None:
    """The random tower's three graphs become plans, with progress from the builder."""
    shares: list[float] = []
    build_plan(rtx, calibrated_bundle.file(graph), tmp_path / "plan", SMALL, report=shares.append)
    assert (tmp_path / "plan").stat().st_size > 10_000
    assert all(0 <= share <= 1 for share in shares)


@pytest.mark.slow
def test_an_asymmetric_graph_is_refused(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """Unsigned levels around 128 are for ONNX Runtime only; the parser's own words come through."""
    derive(calibrated_bundle.file("image.int8.onnx"), tmp_path / "u8.onnx", "static")
    with pytest.raises(EngineError, match=r"(?i)zero.point"):
        build_plan(rtx, tmp_path / "u8.onnx", tmp_path / "plan", SMALL)
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
    build_plan(rtx, tmp_path / "image.onnx", tmp_path / "plan", SMALL)
    assert (tmp_path / "plan").exists()


def for_ampere(rtx: Any) -> Any:
    """Return the library with a builder that builds for SM 8.6 whatever this machine is."""

    def make(logger: Any) -> Any:
        builder = rtx.Builder(logger)

        def configure() -> Any:
            config = builder.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return config

        return SimpleNamespace(
            create_network=builder.create_network,
            create_builder_config=configure,
            create_optimization_profile=builder.create_optimization_profile,
            build_serialized_network=builder.build_serialized_network,
        )

    return SimpleNamespace(**{name: getattr(rtx, name) for name in dir(rtx)} | {"Builder": make, "__version__": "rtx"})


def plan_of(rtx: Any, float_graph: Path, folder: Path, kind: str) -> tuple[LayerCounts, float]:
    """Build a float tower's graph of one kind for SM 8.6; returns the layers' counts and the plan's megabytes."""
    from overflight.calibration.clip import half
    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.halve import halve
    from overflight.calibration.quantise import attention_reads, eligible, quantise
    from overflight.calibration.recipe import ProductRecipe, Recipe

    tower = TowerGraph.open(float_graph)
    if kind != "fp16":
        rows = tuple(ProductRecipe(one.name, half(0.05), "max", 0, 0) for one in eligible(tower))
        scales = {pair: half(0.05) for pair in attention_reads(tower, 256, 64)} if kind == "attention" else {}
        tower = quantise(tower, Recipe(1, "7" * 64, rows, scales, (), {}), {})
    graph = folder / "image.onnx"
    graph.write_bytes(halve(tower).encoded())
    if kind in ("parted", "attention"):
        derive(graph, graph, "parted")
    counts = build_plan(for_ampere(rtx), graph, folder / "plan", PlanSettings(1 << 30))
    print(f"{kind}: {counts}")
    return counts, (folder / "plan").stat().st_size / 1e6


# Per block: int8 products, weights that are dequantised in every frame.
KINDS = {"fp16": (0, 0), "joined": (3, 1), "parted": (4, 0), "attention": (4, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_blocks_of_base_256_run_in_int8(rtx: Any, two_blocks_graph: Path, tmp_path: Path, kind: str) -> None:
    """For SM 8.6: of a parted graph every product is int8 and every attention fused. A joined one is dequantised."""
    counts, _ = plan_of(rtx, two_blocks_graph, tmp_path, kind)
    products, dequantised = KINDS[kind]
    assert (counts.int8_products, counts.dequantised_weights) == (2 * products, 2 * dequantised)
    assert counts.fused_attention == 2


@pytest.mark.slow
def test_base_256_runs_in_int8(rtx: Any, base_256_graph: Path, tmp_path: Path) -> None:
    """SigLIP B/16-256 whole, as ``build`` gives it to TensorRT: 48 int8 products, 12 fused attentions."""
    counts, megabytes = plan_of(rtx, base_256_graph, tmp_path, "parted")
    assert (counts.int8_products, counts.dequantised_weights, counts.fused_attention) == (48, 0, 12)
    assert megabytes < 130


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_base_256_in_every_form(rtx: Any, base_256_graph: Path, tmp_path: Path, kind: str) -> None:
    """The counts that docs/engines.md states."""
    counts, megabytes = plan_of(rtx, base_256_graph, tmp_path, kind)
    products, dequantised = KINDS[kind]
    assert (counts.int8_products, counts.dequantised_weights) == (12 * products, 12 * dequantised)
    assert counts.fused_attention == 12
    assert megabytes < (220 if kind == "fp16" else 130)


@pytest.mark.slow
def test_ctrl_c_ends_a_real_build(rtx: Any, calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """The child stops between two steps: no plan, and a timing cache that the next build reads."""
    graph = calibrated_bundle.file("image.fp16.onnx")

    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_in_child(
            graph, tmp_path / "plan", SMALL, library="tensorrt_rtx", cache_path=tmp_path / "timing", report=interrupt
        )
    assert not (tmp_path / "plan").exists() or (tmp_path / "timing").exists()
    counts = build_in_child(
        graph, tmp_path / "plan", SMALL, library="tensorrt_rtx", cache_path=tmp_path / "timing", inspect=False
    )
    assert counts.layers > 0
    assert (tmp_path / "timing").exists()
