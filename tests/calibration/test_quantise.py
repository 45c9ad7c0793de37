"""Quantising the authored tower: exact where it must be exact, near where it may be near.

Covers: calibration/clip.py, calibration/emulate.py, calibration/graph.py, calibration/halve.py,
calibration/ranges.py, calibration/recipe.py, calibration/smooth.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.calibration.clip import choose, half, round_input, round_weight, weight_levels, weight_scales
from overflight.calibration.emulate import emulate
from overflight.calibration.graph import TowerGraph, load_onnx, open_session
from overflight.calibration.halve import beyond, halve
from overflight.calibration.quantise import attention_reads, eligible, quantise
from overflight.calibration.ranges import Activity, extremes, watch
from overflight.calibration.recipe import ProductRecipe, Recipe
from overflight.calibration.smooth import can_smooth, smooth
from overflight.export.derive import derive
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.fidelity import measure

Factors = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def tower(random_tower_graph: bytes) -> TowerGraph:
    return TowerGraph(load_onnx().load_from_string(random_tower_graph))


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (48, 4, 4, 3))
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated(tower: TowerGraph, frames: NDArray[np.uint8]) -> tuple[Recipe, Factors]:
    products = eligible(tower)
    seen = watch(tower, products, frames[:24], frames[24:32])
    chosen, smoothing = [], {}
    for product in products:
        choice = choose(seen[product.name], tower.array(product.weight), smooth=can_smooth(tower, product))
        chosen.append(ProductRecipe(product.name, choice.scale, choice.clip, choice.alpha, choice.error))
        if choice.smoothing is not None:
            smoothing[product.name] = choice.smoothing
    return Recipe(1, "7" * 64, tuple(chosen), {}, (), {}), smoothing


def run(tower: TowerGraph, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a graph; where it is fp16, with the roundings that the processor would leave out."""
    (answers,) = open_session(emulate(tower.encoded())).run(["embeddings"], {"frames": frames})
    return np.asarray(answers)


def test_only_the_products_of_blocks_are_quantised(tower: TowerGraph) -> None:
    """Patch product and pooling head stay in float: few operations, and the most sensitive."""
    names = {product.name for product in eligible(tower)}
    assert len(names) == 12
    assert all(".block" in name for name in names)
    assert {"image.patches", "image.head.out"} <= {product.name for product in tower.products()}


def test_smoothing_alone_changes_no_answer(tower: TowerGraph, frames: NDArray[np.uint8]) -> None:
    """Factors folded into norms and values leave the fp32 tower the same function."""
    made = tower.copy()
    random = np.random.default_rng(0)
    smoothed = 0
    for product in eligible(made):
        if can_smooth(made, product):
            smooth(made, product, np.exp(random.standard_normal(product.inner)).astype(np.float32))
            smoothed += 1
    assert smoothed == 9  # all but the second product of each MLP, which reads an activation
    assert np.abs(run(made, frames) - run(tower, frames)).max() < 2e-5


def test_smoothing_is_chosen_where_channels_are_uneven() -> None:
    """One channel in twenty that is thirty times larger ruins a per-tensor scale; smoothing repairs most of it."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((256, 40)).astype(np.float32)
    rows[:, ::20] *= 30
    weight = random.standard_normal((40, 64)).astype(np.float32)
    activity = Activity(np.abs(rows).max(axis=0), rows)
    plain, smoothed = (choose(activity, weight, smooth=smooth) for smooth in (False, True))
    assert smoothed.alpha > 0
    assert smoothed.error < plain.error / 2


def test_clips_are_chosen_where_the_tail_is_heavy() -> None:
    """A single value a hundred times the rest must not set the scale."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((512, 64)).astype(np.float32)
    rows[0, 0] = 400
    choice = choose(Activity(np.abs(rows).max(axis=0), rows[1:]), np.eye(64, dtype=np.float32), smooth=False)
    assert choice.clip != "max"
    assert choice.scale < 0.1


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e3))
def test_levels_are_symmetric_and_scales_exact_in_half_precision(seed: int, size: float) -> None:
    """Every scale survives fp16 unchanged, no level is -128, and nothing is off by more than half a step."""
    weight = (np.random.default_rng(seed).standard_normal((16, 8)) * size).astype(np.float32)
    scales = weight_scales(weight)
    assert np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
    levels = weight_levels(weight, scales)
    assert levels.min() >= -127
    assert (np.abs(levels * scales - weight) <= scales * 0.5001).all()
    assert half(size) == np.float16(half(size))


def test_int8_is_near_and_a_wrong_scale_is_not(
    tower: TowerGraph, calibrated: tuple[Recipe, Factors], frames: NDArray[np.uint8]
) -> None:
    """The same measure that passes the good graph fails the one with a scale thirty-two times too large."""
    recipe, smoothing = calibrated
    reference = run(tower, frames[32:])
    good = measure(reference, run(quantise(tower, recipe, smoothing), frames[32:]))
    assert good.cosine_mean > 0.998
    spoilt = Recipe(
        1,
        recipe.tower,
        tuple(
            ProductRecipe(one.name, one.scale * (32 if one.name == "image.block1.mlp.up" else 1), "max", 0, 0)
            for one in recipe.products
        ),
        {},
        (),
        {},
    )
    bad = measure(reference, run(quantise(tower, spoilt, smoothing), frames[32:]))
    assert 1 - bad.cosine_mean > 3 * (1 - good.cosine_mean)


def test_the_graph_is_what_every_engine_runs_in_int8(tower: TowerGraph, calibrated: tuple[Recipe, Factors]) -> None:
    """int8 weights behind a DQ, a scale per output channel; scalar input scales; zeros zero; no fp32 weight left."""
    onnx = load_onnx()
    made = quantise(tower, *calibrated)
    onnx.checker.check_model(made.model, full_check=True)
    for product in eligible(tower):
        node = made.nodes[product.name]
        weight = made.nodes[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert made.array(weight.input[0]).dtype == np.int8
        assert made.array(weight.input[1]).shape == (product.outer,)
        assert {attribute.name: attribute.i for attribute in weight.attribute} == {"axis": 1}
        pair = made.nodes[node.input[0]]
        assert made.array(pair.input[1]).shape == ()
        assert not made.array(pair.input[2]).any()
        assert not made.array(weight.input[2]).any()
        assert product.weight not in made.constants
    assert {node.op_type for node in made.model.graph.node} - {node.op_type for node in tower.model.graph.node} == {
        "QuantizeLinear",
        "DequantizeLinear",
    }


def test_a_product_that_is_kept_stays_float(
    tower: TowerGraph, calibrated: tuple[Recipe, Factors], frames: NDArray[np.uint8]
) -> None:
    """With every product kept, the smoothed graph is the fp32 tower again."""
    recipe, smoothing = calibrated
    kept = tuple(
        ProductRecipe(one.name, one.scale, one.clip, one.alpha, one.error, kept="test") for one in recipe.products
    )
    made = quantise(tower, Recipe(1, recipe.tower, kept, {}, (), {}), smoothing)
    assert not any(node.op_type == "QuantizeLinear" for node in made.model.graph.node)
    assert np.abs(run(made, frames) - run(tower, frames)).max() < 2e-5


@pytest.mark.parametrize("quantised", [False, True])
def test_halving_keeps_norms_and_softmax_in_fp32(
    tower: TowerGraph, calibrated: tuple[Recipe, Factors], frames: NDArray[np.uint8], quantised: bool
) -> None:
    """Types as promised, by the checker's own inference; the answers stay within what half precision can do."""
    onnx = load_onnx()
    base = quantise(tower, *calibrated) if quantised else tower
    made = halve(base)
    onnx.checker.check_model(made.model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(made.model, strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    for node in made.model.graph.node:
        if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2"):
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT, node.name
        elif node.op_type in ("MatMul", "Gelu", "QuantizeLinear"):
            expected = onnx.TensorProto.INT8 if node.op_type == "QuantizeLinear" else onnx.TensorProto.FLOAT16
            assert kinds[node.output[0]] == expected, node.name
    assert measure(run(base, frames), run(made, frames)).cosine_mean > 0.9995
    assert len(made.encoded()) < 0.62 * len(tower.encoded())


@pytest.mark.parametrize("quantised", [False, True])
def test_a_tensor_beyond_half_precision_is_kept_in_fp32(
    tower: TowerGraph, frames: NDArray[np.uint8], quantised: bool
) -> None:
    """An MLP that is 100,000 inside overflows in naive fp16; by its measured range it stays in fp32, its reader too."""
    loud = tower.copy()
    for name, factor in (("up.weight", 3e4), ("up.bias", 3e4), ("down.weight", 1 / 3e4)):
        loud.put(f"image.block1.mlp.{name}", loud.array(f"image.block1.mlp.{name}") * np.float32(factor))
    reference = run(loud, frames)
    full = beyond(extremes(loud, frames[:4]))
    assert set(full) == {f"image.block1.mlp.{name}" for name in ("up", "up.add", "activation")}
    if quantised:
        products = eligible(loud)
        seen = watch(loud, products, frames[:24], frames[24:32])
        chosen = {one.name: choose(seen[one.name], loud.array(one.weight), smooth=False) for one in products}
        rows = tuple(ProductRecipe(name, one.scale, one.clip, 0, one.error) for name, one in chosen.items())
        made = quantise(loud, Recipe(1, "7" * 64, rows, {}, (), {}), {})
    else:
        made = loud
    naive, careful = run(halve(made), frames), run(halve(made, full), frames)
    assert measure(reference, naive).cosine_mean < 0.95
    assert measure(reference, careful).cosine_mean > 0.998


@pytest.fixture(scope="module")
def preset(tower: TowerGraph, calibrated: tuple[Recipe, Factors], frames: NDArray[np.uint8]) -> TowerGraph:
    """Return the tower quantised inside attention too."""
    recipe, smoothing = calibrated
    reads = attention_reads(tower, 16, 16)
    assert len(reads) == 12
    reached = extremes(tower, frames[:8])
    scales = {pair: half(reached[name] / 127) for pair, name in reads.items()}
    return quantise(tower, Recipe(1, recipe.tower, recipe.products, scales, (), {}), smoothing)


def test_the_attention_preset_quantises_inside_attention(
    tower: TowerGraph, preset: TowerGraph, frames: NDArray[np.uint8]
) -> None:
    """Pairs before both products of every block, none in the head; other head sizes are refused."""
    load_onnx().checker.check_model(preset.model, full_check=True)
    assert sum(node.op_type == "QuantizeLinear" for node in preset.model.graph.node) == 24
    assert measure(run(tower, frames), run(preset, frames)).cosine_mean > 0.995
    for tokens, depth in ((16, 72), (729, 64)):
        with pytest.raises(UsageError, match="without --attention"):
            attention_reads(tower, tokens, depth)


def test_the_unsigned_form_leaves_attention_signed(
    preset: TowerGraph, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """What products with a weight read becomes unsigned, what two frames' products read does not; no answer changes."""
    onnx = load_onnx()
    (tmp_path / "source.onnx").write_bytes(preset.encoded())
    derive(tmp_path / "source.onnx", tmp_path / "made.onnx", "unsigned")
    made = TowerGraph(onnx.load(str(tmp_path / "made.onnx")))
    onnx.checker.check_model(made.model, full_check=True)
    kinds = {constant.name: constant.data_type for constant in made.model.graph.initializer}
    zeros = {node.name: kinds[node.input[2]] for node in made.model.graph.node if node.op_type == "QuantizeLinear"}
    signed = {name for name, kind in zeros.items() if kind == onnx.TensorProto.INT8}
    assert {kind for name, kind in zeros.items() if name not in signed} == {onnx.TensorProto.UINT8}
    assert len(zeros) == 24
    assert len(signed) == 12
    assert all(".attention.scores" in name or ".attention.mixed" in name for name in signed)
    assert measure(run(preset, frames), run(made, frames)).cosine_min > 0.9999


def test_rounding_helpers_match_onnx(tower: TowerGraph) -> None:
    """What the search computes is what QuantizeLinear and DequantizeLinear do, ties to even and all."""
    onnx = load_onnx()
    rows = np.concatenate([np.linspace(-3, 3, 241), [1e4, -1e4]]).astype(np.float32)[None]
    scale = np.array(half(0.0125), np.float32)
    zero = onnx.numpy_helper.from_array(np.array(0, np.int8), "zero")
    make, pair = onnx.helper.make_node, ["scale", "zero"]
    graph = onnx.helper.make_graph(
        [
            make("QuantizeLinear", ["x", *pair], ["q"]),
            make("DequantizeLinear", ["q", *pair], ["y"]),
        ],
        "pair",
        [onnx.helper.make_tensor_value_info("x", 1, [1, None])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, None])],
        [onnx.numpy_helper.from_array(scale, "scale"), zero],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    (expected,) = open_session(model.SerializeToString()).run(None, {"x": rows})
    np.testing.assert_array_equal(round_input(rows, float(scale)), expected)
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    assert np.abs(round_weight(weight) - weight).max() < 0.02


def test_emulation_rounds_as_half_precision_does(tower: TowerGraph, frames: NDArray[np.uint8]) -> None:
    """An fp32 graph is left as it is; an fp16 one answers otherwise than the processor's own fp32 shortcut."""
    assert np.array_equal(run(tower, frames), open_session(tower.encoded()).run(None, {"frames": frames})[0])
    made = halve(tower)
    (shortcut,) = open_session(made.encoded()).run(None, {"frames": frames})
    assert np.abs(run(made, frames) - shortcut).max() > 1e-4
