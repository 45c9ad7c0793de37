"""The memory plan against measured peaks.

Covers: runtime/doctor/tower.py, runtime/engines/heap.py.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.jetson.board import modules
from overflight.runtime.doctor import memory_plan
from overflight.runtime.doctor.tower import Tower, read_tower
from overflight.runtime.errors import BundleError, MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.engines import Precision

B16 = Tower(350 << 20, 256, 768, 3072, ((768, 768), *(((768, 2304), (768, 768), (768, 3072), (3072, 768)) * 12)))

CHILD = """
import re, sys
from pathlib import Path
import numpy as np
from overflight.runtime.engines.ort import OnnxRuntimeEngine
engine = OnnxRuntimeEngine(Path(sys.argv[1]), "0" * 64)
for _ in range(2):
    engine.embed(np.zeros((1, engine.side, engine.side, 3), np.uint8))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def write_tower(path: Path, width: int, depth: int) -> None:
    """Write random towers in our names: patches, positions and blocks of real size, one head-free attention each."""
    onnx = pytest.importorskip("onnx", reason="writing the graph needs the export extra")
    helper, kind, rng = onnx.helper, onnx.TensorProto, np.random.default_rng(0)
    constants, nodes, x = [], [], "patches"

    def constant(name: str, *dims: int) -> str:
        constants.append(onnx.numpy_helper.from_array(rng.normal(0, 0.02, dims).astype(np.float32), name))
        return name

    def product(name: str, x: str, k: int, n: int) -> str:
        nodes.append(helper.make_node("MatMul", [x, constant(f"{name}.weight", k, n)], [name]))
        return name

    constants.append(onnx.numpy_helper.from_array(np.array([0, 256, 768]), "grid"))
    nodes.append(helper.make_node("Cast", ["frames"], ["pixels"], to=kind.FLOAT))
    nodes.append(helper.make_node("Reshape", ["pixels", "grid"], ["patches"]))
    x = product("image.patches", x, 768, width)
    nodes.append(helper.make_node("Add", [x, constant("image.positions.bias", 256, width)], ["positions"]))
    x = "positions"
    for block in range(depth):
        name = f"image.block{block}"
        wide = product(f"{name}.mlp.up", product(f"{name}.out", product(f"{name}.qkv", x, width, 3 * width),
                                                 3 * width, width), width, 4 * width)  # fmt: skip
        nodes.append(helper.make_node("Gelu", [wide], [f"{name}.gelu"]))
        x = product(f"{name}.mlp.down", f"{name}.gelu", 4 * width, width)
    nodes.append(helper.make_node("ReduceMean", [x, "axis"], ["embeddings"], keepdims=0))
    constants.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes, "image", [helper.make_tensor_value_info("frames", kind.UINT8, ["N", 256, 256, 3])],
        [helper.make_tensor_value_info("embeddings", kind.FLOAT, ["N", width])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_a_tower_is_read_without_onnx(tmp_path: Path) -> None:
    """Shapes, weights and work come off the graph's own bytes; the weights themselves are not read."""
    write_tower(tmp_path / "image.onnx", 128, 3)
    tower = read_tower(tmp_path / "image.onnx")
    assert (tower.tokens, tower.width, tower.inner, tower.depth, tower.heads) == (256, 128, 512, 3, 2)
    held = 768 * 128 + 256 * 128 + 3 * (128 * 384 + 384 * 128 + 2 * 128 * 512)
    assert tower.weight_bytes == 4 * held + 8 * (3 + 1)


def test_the_work_of_a_known_tower() -> None:
    """SigLIP B/16-256: 46.8 GFLOP in its blocks and patches, the literature's figure within five percent."""
    assert B16.flops / 1e9 == pytest.approx(46.8, rel=0.05)
    assert B16.depth == 12


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40])
def test_what_is_no_tower_is_refused(tmp_path: Path, content: bytes) -> None:
    """Torn and foreign files are a BundleError, never a crash."""
    (tmp_path / "image.onnx").write_bytes(content)
    with pytest.raises(BundleError):
        read_tower(tmp_path / "image.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(256, 12), (512, 12), (1024, 4)])
def test_the_prediction_is_near_the_measured_peak(tmp_path: Path, width: int, depth: int) -> None:
    """ONNX Runtime, three sizes: a fresh process never peaks above the plan, and the plan is not a third too careful.

    How the weights are packed depends on the processor: with matrix units (AMX) they take a quarter more than without.
    """
    pytest.importorskip("onnxruntime")
    write_tower(tmp_path / "image.onnx", width, depth)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "image.onnx"], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    tower = read_tower(tmp_path / "image.onnx")
    predicted = memory_plan.plan_flight(tower, "onnxruntime-cpu", "fp32", 1 << 40).peak - memory_plan._STREAM
    measured = int(child.stdout)
    print(f"{width} wide, {depth} deep: {measured / 1e6:.0f} MB measured, {predicted / 1e6:.0f} MB predicted")
    assert measured / 1.05 <= predicted <= measured / 0.75


def test_a_flight_that_does_not_fit_is_refused_with_numbers() -> None:
    """What it takes, what there is, what is missing, what to do; exit code 3."""
    tight = memory_plan.plan_flight(B16, "onnxruntime-cpu", "fp32", 400 << 20)
    with pytest.raises(MissingError, match=r"takes 0\.\d+ GiB .*0\.39 GiB can be used.* too little; stop the desktop"):
        memory_plan.require(tight)
    roomy = memory_plan.plan_flight(B16, "onnxruntime-cpu", "fp32", 4 << 30)
    assert memory_plan.require(roomy) is roomy


def test_int8_and_tiles_change_the_peak() -> None:
    """A quarter of the weights, and activations for every tile."""
    asked: list[tuple[Precision, int]] = [("int8", 1), ("fp32", 1), ("fp32", 8)]
    flights = [
        memory_plan.plan_flight(B16, "onnxruntime-cpu", kind, 1 << 40, batch=batch).peak for kind, batch in asked
    ]
    assert flights[0] < flights[1] - (200 << 20)
    assert flights[2] > flights[1] + 7 * 4 * B16.activation_bytes


def test_the_workspace_is_fitted_to_what_is_left() -> None:
    """Plenty gives the most, little gives less, too little is refused."""
    assert memory_plan.plan_build(B16, "fp16", 16 << 30).workspace == memory_plan.WORKSPACE_MOST
    tight = memory_plan.plan_build(B16, "fp16", 3 << 30)
    assert tight.workspace is not None
    assert memory_plan.WORKSPACE_LEAST < tight.workspace < memory_plan.WORKSPACE_MOST
    assert tight.fits
    assert tight.peak + memory_plan.MARGIN == tight.usable
    assert not memory_plan.plan_build(B16, "fp16", 2 << 30).fits
    assert memory_plan.plan_build(B16, "fp16", 2 << 30, swap=4 << 30).fits


def test_a_build_is_planned_in_its_own_precision() -> None:
    """An int8 build holds int8 weights: what refuses fp32 and fp16 on 2 GiB may take int8."""
    kinds: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    peaks = {kind: memory_plan.plan_build(B16, kind, 0).peak for kind in kinds}
    assert peaks["fp32"] - peaks["fp16"] == pytest.approx(2.5 * B16.weight_bytes, rel=0.01)
    assert peaks["fp16"] - peaks["int8"] == pytest.approx(5 * 0.23 * B16.weight_bytes, rel=0.01)


def test_a_4_gb_board_builds_b16_in_int8_and_an_8_gb_board_l16() -> None:
    """The plan for boards on the ground, without swap."""
    boards = {module.key: module for module in modules()}
    block = ((1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024))
    l16 = Tower(1208 << 20, 256, 1024, 4096, ((768, 1024), *(block * 24)))
    towers = {"b16": B16, "l16": l16, "large": Tower(6 << 30, 256, 1024, 4096, ((1024, 4096),))}
    assert memory_plan.largest_build(towers, boards["orin-nano-4gb"], "int8") == "b16"
    assert memory_plan.largest_build(towers, boards["orin-nano-8gb"], "int8") == "l16"
    assert memory_plan.largest_build(towers, boards["orin-nano-8gb"], "fp16") == "l16"
    assert memory_plan.largest_build(towers, boards["agx-orin-64gb"], "fp32") == "large"
