"""Building engines on this machine: proven, timed, chosen; and what a fault or a kill leaves.

Covers: export/candidate_plan.py, export/candidates.py, export/commands/build.py, export/diagnose.py,
runtime/evaluation/holdout.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.export.build import Built, build
from overflight.export.candidates import PlanChoice, find_candidates
from overflight.export.commands.build import command
from overflight.export.derive import Form, derive
from overflight.export.diagnose import diagnose
from overflight.export.plan import PlanSettings
from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.doctor.memory_plan import WORKSPACE_MOST
from overflight.runtime.doctor.probe import ProbeResult
from overflight.runtime.engines.ort import OnnxRuntimeEngine
from overflight.runtime.engines.record import LayerCounts
from overflight.runtime.errors import EngineError, MissingError
from overflight.runtime.evaluation.fidelity import measure
from overflight.runtime.evaluation.holdout import HeldOut, bundled_holdout
from overflight.runtime.progress import unreported
from overflight.runtime.store import Store, choose, default_engine, engine_key, refusal

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    from overflight.export import timing

    monkeypatch.setattr(timing, "_BUDGET_S", 0.2)


@pytest.fixture
def held(calibrated_bundle: Bundle) -> HeldOut:
    return bundled_holdout(calibrated_bundle)


def plant(bundle: Bundle, name: str, factor: float) -> Bundle:
    """Multiply one constant of the int8 graph and seal the bundle again, as a careless tool would."""
    onnx = pytest.importorskip("onnx")
    path = bundle.directory / "image.int8.onnx"
    model = onnx.load(str(path))
    (constant,) = (one for one in model.graph.initializer if one.name.removesuffix(".half") == name)
    array = onnx.numpy_helper.to_array(constant)
    constant.CopyFrom(onnx.numpy_helper.from_array((array * factor).astype(array.dtype), constant.name))
    path.write_bytes(model.SerializeToString())
    return seal(bundle.directory, bundle.manifest)


def saturates() -> bool:
    """Whether OpenVINO adds pairs of int8 products in 16 bits here: AVX2 or AVX-512 without VNNI."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return bool(flags & {"avx2", "avx512f"}) and not flags & {"avx_vnni", "avx512_vnni"}


def test_every_engine_of_this_machine_is_proven_and_the_fastest_flies(calibrated_bundle: Bundle, held: HeldOut) -> None:
    """The default is the first row, opens, and answers as its record says."""
    built = build(calibrated_bundle, held)
    assert [row.status for row in built.rows].count("default") == 1
    assert built.rows[0].status == "default"
    failed = {row.title for row in built.rows if row.status == "failed"}
    assert all(saturates() and title.startswith("openvino-cpu int8") for title in failed), built.rows
    record = built.rows[0].record
    assert record is not None
    times = [row.record.timing.p50_ns for row in built.rows if row.record and row.record.timing]
    assert times == sorted(times)
    assert len(record.timing.samples_ns if record.timing else ()) >= 15
    titles = {row.title: row.status for row in built.rows}
    assert titles["onnxruntime-cpu fp32"] in ("default", "proven")
    assert {"onnxruntime-cpu int8 dynamic", "onnxruntime-cpu int8 static"} <= set(titles)
    engine = default_engine(calibrated_bundle)
    assert engine.info.sha256 == record.sha256
    found = measure(
        choose(calibrated_bundle, "onnxruntime-cpu", "fp32").engine.embed(held.frames[:8]).copy(),
        engine.embed(held.frames[:8]),
    )
    assert found.cosine_mean > 0.995
    assert msgspec.json.decode(msgspec.json.encode(built), type=Built) == built


def test_what_was_built_is_not_built_again(
    calibrated_bundle: Bundle, held: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second build only judges and times; a damaged engine is made anew."""
    from overflight.export import build as room

    build(calibrated_bundle, held, target="onnxruntime-cpu")
    made: list[str] = []
    real = room._make

    def counted(*given: object) -> object:
        made.append(given[2].title)  # type: ignore[attr-defined]
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_make", counted)
    build(calibrated_bundle, held, target="onnxruntime-cpu")
    assert made == []
    entry = next(one for one in Store(calibrated_bundle).entries() if one.record.variant == "static")
    (entry.path / "image.onnx").write_bytes(b"damaged")
    build(calibrated_bundle, held, target="onnxruntime-cpu")
    assert made == ["onnxruntime-cpu int8 static"]


def test_a_planted_fault_fails_the_gate_is_named_and_cannot_fly(calibrated_bundle: Bundle, held: HeldOut) -> None:
    """One product's weight scale times eight: refused by every int8 engine, by name, and by what opens engines."""
    product = "image.block1.attention.qkv"
    spoilt = plant(calibrated_bundle, f"{product}.weight.scale", 8)
    built = build(spoilt, held, target="onnxruntime-cpu")
    rows = [row for row in built.rows if "int8" in row.title]
    assert rows
    for row in rows:
        assert row.status == "failed", row.title
        assert f"look at {product}:" in row.reason
    with pytest.raises(EngineError, match=f"failed the gate.*{product}"):
        choose(spoilt, precision="int8")
    assert default_engine(spoilt).info.precision != "int8"
    forced = choose(spoilt, precision="int8", forced=True)
    assert forced.note.startswith("forced: ")


@pytest.mark.parametrize("product", ["block0.attention.out", "block1.mlp.up", "block2.mlp.down"])
def test_any_wrong_product_is_named(calibrated_bundle: Bundle, held: HeldOut, product: str) -> None:
    """Smoothed or not, first or last: what others make of its answers does not count against them."""
    spoilt = plant(calibrated_bundle, f"image.{product}.weight.scale", 8)
    assert diagnose(spoilt, "image.int8.onnx", held.frames)[0].name == f"image.{product}"


def test_a_wrong_input_scale_is_named_too(calibrated_bundle: Bundle, held: HeldOut) -> None:
    """It costs less than a wrong weight, but stands out just the same."""
    assert diagnose(calibrated_bundle, "image.int8.onnx", held.frames)[0].times_median < 4
    spoilt = plant(calibrated_bundle, "image.block2.attention.qkv.input.scale", 8)
    worst = diagnose(spoilt, "image.int8.onnx", held.frames)[0]
    assert worst.name == "image.block2.attention.qkv"
    assert worst.times_median > 4


def quantised_products(graph: Path) -> int:
    """Count the products whose two sides are read through DequantizeLinear."""
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(str(graph)).graph.node
    writers = {output: node.op_type for node in nodes for output in node.output}
    return sum(
        node.op_type == "MatMul" and all(writers.get(name) == "DequantizeLinear" for name in node.input)
        for node in nodes
    )


@pytest.mark.parametrize("form", ["static", "dynamic", "unsigned"])
def test_derived_forms_answer_as_the_graph_they_come_from(
    calibrated_bundle: Bundle, held: HeldOut, tmp_path: Path, form: Form
) -> None:
    """Unsigned levels change nothing but rounding; ranges of the frame itself are as good or better."""
    derive(calibrated_bundle.file("image.int8.onnx"), tmp_path / "made.onnx", form)
    reference = OnnxRuntimeEngine(calibrated_bundle.file("image.onnx"), "")
    made = OnnxRuntimeEngine(tmp_path / "made.onnx", "")
    source = OnnxRuntimeEngine(calibrated_bundle.file("image.int8.onnx"), "")
    exact = reference.embed(held.frames).copy()
    lost = 1 - measure(exact, made.embed(held.frames).copy()).cosine_mean
    source_lost = 1 - measure(exact, source.embed(held.frames).copy()).cosine_mean
    assert lost < 1.5 * source_lost + 1e-5
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tmp_path / "made.onnx"))
    single = not any(one.data_type == onnx.TensorProto.FLOAT16 for one in model.graph.initializer)
    assert single == (form != "unsigned")  # OpenVINO widens constants itself
    operators = [node.op_type for node in model.graph.node]
    products = quantised_products(calibrated_bundle.file("image.int8.onnx"))
    assert 8 <= products <= 12  # a product that costs too much stays in float
    assert operators.count("DynamicQuantizeMatMul") == (products if form == "dynamic" else 0)
    assert ("QuantizeLinear" in operators) == (form != "dynamic")
    assert operators.count("Split") == (0 if form == "unsigned" else 3)
    source_bytes = calibrated_bundle.file("image.int8.onnx").stat().st_size
    assert (tmp_path / "made.onnx").stat().st_size < 1.05 * source_bytes + 400_000  # scales in single precision


def test_openvino_runs_the_unsigned_form(calibrated_bundle: Bundle, held: HeldOut, tmp_path: Path) -> None:
    """It answers as the graph that it comes from, but for steps that one processor rounds up and another down."""
    pytest.importorskip("openvino")
    from overflight.runtime.engines.openvino import OpenVinoEngine

    derive(calibrated_bundle.file("image.int8.onnx"), tmp_path / "made.onnx", "unsigned")
    whole = OpenVinoEngine(calibrated_bundle.file("image.int8.onnx"), "a", "int8")
    unsigned = OpenVinoEngine(tmp_path / "made.onnx", "b", "int8")
    exact = OnnxRuntimeEngine(calibrated_bundle.file("image.onnx"), "").embed(held.frames).copy()
    answers = whole.embed(held.frames).copy()
    apart = 1 - measure(answers, unsigned.embed(held.frames).copy()).cosine_mean
    assert apart < 0.1 * (1 - measure(exact, answers).cosine_mean)
    unsigned.close()
    whole.close()


def test_what_is_not_here_is_reported(tower_bundle: Bundle, calibrated_bundle: Bundle) -> None:
    """No GPU, no calibration: each candidate says why it was not tried; asked for alone it is exit code 3."""
    found, absent = find_candidates(calibrated_bundle, "auto")
    assert {one.target for one in found} >= {"onnxruntime-cpu"}
    if any(one.title == "tensorrt" for one in absent):
        with pytest.raises(MissingError):
            find_candidates(calibrated_bundle, "tensorrt")
    bare = Bundle(
        tower_bundle.directory,
        msgspec.structs.replace(tower_bundle.manifest, files={"image.onnx": tower_bundle.manifest.files["image.onnx"]}),
        "0" * 64,
    )
    found, absent = find_candidates(bare, "onnxruntime-cpu")
    assert [one.title for one in found] == ["onnxruntime-cpu fp32"]
    assert all("overflight calibrate" in one.reason for one in absent)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ProbeResult({"CUDAExecutionProvider": False, "CPUExecutionProvider": True}), "libraries are not found"),
        (ProbeResult(error="ended by signal 11"), "ended by signal 11"),
    ],
)
def test_a_listed_provider_that_does_not_load_is_no_candidate(
    calibrated_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, answer: ProbeResult, reason: str
) -> None:
    """ONNX Runtime lists CUDA wherever it was compiled in; a session in a child process shows whether it loads."""
    from overflight.export import candidates

    monkeypatch.setattr(candidates, "versions", lambda target: {"onnxruntime": "1.31.1"})
    monkeypatch.setattr(candidates, "device_name", lambda target: "Orin (sm_87, 8 SMs, 7 GiB)")
    monkeypatch.setattr("overflight.runtime.doctor.probe.providers", lambda: answer)
    with pytest.raises(MissingError, match=f"listed but does not load: .*{reason}"):
        find_candidates(calibrated_bundle, "onnxruntime-cuda")
    loads = ProbeResult({"CUDAExecutionProvider": True})
    monkeypatch.setattr("overflight.runtime.doctor.probe.providers", lambda: loads)
    found, _ = find_candidates(calibrated_bundle, "onnxruntime-cuda")
    assert [one.title for one in found] == ["onnxruntime-cuda fp32", "onnxruntime-cuda fp16"]


def test_tensorrt_gets_the_parted_graph_and_the_profiles_that_were_asked_for(
    calibrated_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One candidate per precision; level and profiles are part of an engine's key."""
    from overflight.export import build as room
    from overflight.export import candidates

    for module in (candidates, room):
        monkeypatch.setattr(module, "versions", lambda target: {"tensorrt": "10.3.0"})
        monkeypatch.setattr(module, "device_name", lambda target: "Orin (sm_87, 8 SMs, 7 GiB)")
    (fp16, int8), _ = find_candidates(calibrated_bundle, "tensorrt", PlanChoice((1, 8), 5))
    assert (fp16.form, int8.form) == ("plan", "parted plan")
    assert (int8.max_batch, int8.level, int8.profiles) == (8, 5, (1, 8))
    (_, usual), _ = find_candidates(calibrated_bundle, "tensorrt")
    keys = {engine_key(room._describe(calibrated_bundle, one)) for one in (fp16, int8, usual)}
    assert len(keys) == 3


def test_a_tensorrt_candidate_is_built_in_a_child(
    calibrated_bundle: Bundle, held: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the memory that is left, from the parted graph, and its record keeps what the builder made of it."""
    from overflight.export import build as room
    from overflight.export import candidate_plan, candidates

    asked: dict[str, object] = {}

    def built(graph: Path, plan: Path, settings: PlanSettings, **options: object) -> LayerCounts:
        text = graph.read_bytes()
        asked.update(settings=settings, parted=b"image.block0.attention.split.q.product" in text, **options)
        plan.write_bytes(b"plan")
        return LayerCounts(158, 2, 12, 0, 0)

    for module in (candidates, room):
        monkeypatch.setattr(module, "versions", lambda target: {"tensorrt": "10.3.0"})
        monkeypatch.setattr(module, "device_name", lambda target: "Orin (sm_87, 8 SMs, 7 GiB)")
    monkeypatch.setattr(candidate_plan, "build_in_child", built)
    monkeypatch.setattr(candidate_plan, "load_library", lambda: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(candidate_plan, "usable_here", lambda: (8 << 30, 0))
    (_, candidate), _ = find_candidates(calibrated_bundle, "tensorrt", PlanChoice((1, 4)))
    store = Store(calibrated_bundle)
    entry = room._make(store, calibrated_bundle, candidate, room._describe(calibrated_bundle, candidate), unreported)
    assert asked["parted"]
    assert asked["settings"] == PlanSettings(WORKSPACE_MOST, (1, 4), 3)
    assert asked["cache_path"] == tmp_path / "home" / "engines" / "tensorrt-10.3.0.timing"
    assert entry.record.layers == LayerCounts(158, 2, 12, 0, 0)
    assert "2 of 3 attentions fused" in entry.record.note
    assert "1 attentions run unfused" in entry.record.note
    assert [path.name for path in sorted(entry.path.iterdir())] == ["engine.json", "image.plan"]
    monkeypatch.setattr(candidate_plan, "usable_here", lambda: (1 << 30, 0))
    with pytest.raises(MissingError, match="building a TensorRT int8 engine takes"):
        room._make(store, calibrated_bundle, candidate, room._describe(calibrated_bundle, candidate), unreported)


@pytest.mark.parametrize("wrong", ["8,1", "0", "1,x", "", "100"])
def test_profiles_that_make_no_sense_are_a_usage_error(calibrated_bundle: Bundle, wrong: str) -> None:
    """With what was expected."""
    done = CliRunner().invoke(command, [str(calibrated_bundle.directory), "--profile", wrong])
    assert done.exit_code == 2
    assert "expected rising batch sizes from 1 to 64, such as 1,8" in done.output


def test_the_command_prints_its_table(calibrated_bundle: Bundle, scenery: Path) -> None:
    """As a table, and with every sample as JSON; frames that calibrated it are pointed out."""
    where = str(calibrated_bundle.directory)
    done = CliRunner().invoke(command, [where, "--target", "onnxruntime-cpu"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "flies from now on" in done.stdout
    assert "onnxruntime-cpu int8 static" in done.stdout
    done = CliRunner().invoke(command, [where, "--target", "onnxruntime-cpu", "--frames", str(scenery), "--json"])
    assert done.exit_code == 0, done.output
    reported = json.loads(done.stdout)
    assert reported["samples"] == 96
    assert reported["overlapping"] > 30
    assert "look like ones it was calibrated with" in done.stderr


_BUILDER = """
import sys
from overflight.export import timing
from overflight.export.build import build
from overflight.runtime.bundle import Bundle
from overflight.runtime.evaluation.holdout import bundled_holdout
timing._BUDGET_S = 0.2
bundle = Bundle.open(sys.argv[1])
print("ready", flush=True)
while True:
    for entry in __import__("overflight.runtime.store", fromlist=["Store"]).Store(bundle).entries():
        __import__("shutil").rmtree(entry.path) if entry.record.variant == "static" else None
    build(bundle, bundled_holdout(bundle))
"""


@pytest.mark.slow
def test_a_build_killed_at_a_random_moment_leaves_a_bundle_and_a_default_that_run(
    calibrated_bundle: Bundle, held: HeldOut
) -> None:
    """Ten times SIGKILL: the bundle verifies, the default opens and answers, no half engine is ever an entry."""
    build(calibrated_bundle, held)
    expected = default_engine(calibrated_bundle).embed(held.frames[:2]).copy()
    waits = random.Random(0)
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", _BUILDER, str(calibrated_bundle.directory)],
            env={**os.environ, "PYTHONPATH": "src"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(waits.uniform(0.05, 3.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        bundle = Bundle.open(calibrated_bundle.directory)
        bundle.verify()
        chosen = choose(bundle)
        assert chosen.record is not None, chosen.note
        assert refusal(chosen.record) is None
        # Another of the proven engines may have been the fastest this time: as near as the gate allows for int8.
        assert measure(expected, np.array(chosen.engine.embed(held.frames[:2]))).cosine_mean > 0.99
        for entry in Store(bundle).entries():
            entry.check(bundle)
    build(calibrated_bundle, held)
    assert not list(Store(calibrated_bundle).path.glob(".partial-*"))
