"""The authored graphs keep the contract: shapes, operators, names, and one answer whatever the batch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from overflight.export.author import author_image, author_text
from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.prove import golden_frames, golden_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tiny = Callable[..., Path]
FAMILIES = ["siglip", "siglip2", "clip", "clip-gelu"]

# What every engine of ours takes: ONNX Runtime, OpenVINO, and TensorRT from 10.3 on, strongly typed.
IMAGE_OPERATORS = {
    "Cast", "Slice", "Reshape", "Transpose", "MatMul", "Pad", "Add", "LayerNormalization", "Split", "Softmax", "Gelu",
    "Mul", "Sigmoid", "Gather", "ReduceL2", "Div",
}  # fmt: skip
TEXT_OPERATORS = IMAGE_OPERATORS | {"GatherND", "ArgMax", "Equal"}


@pytest.fixture(params=FAMILIES)
def authored(tiny: Tiny, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Any]:
    """Both towers of a family, written to a directory."""
    model = describe(Checkpoint.open(tiny(request.param)))
    author_image(model.image, model.embedding).save(tmp_path / "image.onnx")
    author_text(model.text, model.embedding).save(tmp_path / "text.onnx")
    return tmp_path, model


def run(path: Path, inputs: NDArray[Any]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return answer


def signature(value: Any) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [axis.dim_param or axis.dim_value for axis in kind.shape.dim]


def test_inputs_and_outputs_are_the_contracts(authored: tuple[Path, Any]) -> None:
    """uint8 NHWC or int64 tokens in, float32 embeddings out, N free, opset 20."""
    directory, model = authored
    image, text = (onnx.load(directory / f"{tower}.onnx") for tower in ("image", "text"))
    for loaded in (image, text):
        onnx.checker.check_model(loaded, full_check=True)
        assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [("", 20)]
        assert [signature(value) for value in loaded.graph.output] == [("embeddings", 1, ["N", model.embedding])]
    side = model.image.side
    assert [signature(value) for value in image.graph.input] == [("frames", 2, ["N", side, side, 3])]
    assert [signature(value) for value in text.graph.input] == [("tokens", 7, ["N", 12])]


def test_only_standard_operators_and_no_shape_arithmetic(authored: tuple[Path, Any]) -> None:
    """No Attention, no Shape, no Conv; the cast comes first; per layer one product and one split for q, k and v."""
    directory, model = authored
    image, text = (onnx.load(directory / f"{tower}.onnx").graph for tower in ("image", "text"))
    assert image.node[0].op_type == "Cast"
    assert {node.op_type for node in image.node} <= IMAGE_OPERATORS
    assert {node.op_type for node in text.node} <= TEXT_OPERATORS
    blocks = len(model.image.encoder.blocks)
    assert Counter(node.op_type for node in image.node)["Split"] == blocks
    assert sum(node.name.endswith("attention.qkv") for node in image.node) == blocks


def test_names_are_unique_stable_and_say_where_they_are(authored: tuple[Path, Any]) -> None:
    """Calibration finds every layer by name, its constant next to it as [K, N]."""
    directory, model = authored
    graph = onnx.load(directory / "image.onnx").graph
    names = [node.name for node in graph.node]
    assert len(names) == len(set(names))
    assert all(re.match(r"image\.|embeddings$", name) for name in names)
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    width = model.image.encoder.width
    for layer, shape in {
        "attention.qkv": [width, 3 * width],
        "attention.out": [width, width],
        "mlp.up": [width, 40],
    }.items():
        assert f"image.block1.{layer}" in names
        assert weights[f"image.block1.{layer}.weight"] == shape
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            assert node.input[1] == f"{node.name}.weight"


def test_the_last_mlp_sees_only_what_is_pooled(authored: tuple[Path, Any]) -> None:
    """Where one state stands for all, the others are dropped before the last block's MLP."""
    directory, _ = authored
    for tower in ("image", "text"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(directory / f"{tower}.onnx")).graph
        ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
        pooled = f"{tower}.pooled" in ranks
        assert ranks[f"{tower}.block1.mlp.down"] == (2 if pooled else 3)
        assert ranks[f"{tower}.block0.mlp.down"] == 3
        assert pooled != any(node.name.startswith(f"{tower}.head") for node in graph.node)


def test_a_batch_answers_as_its_members_do(authored: tuple[Path, Any]) -> None:
    """N is free, and no frame or text sees its neighbours."""
    directory, model = authored
    for path, inputs in (
        (directory / "image.onnx", golden_frames(model.image.side)),
        (directory / "text.onnx", golden_tokens(model.text)),
    ):
        together = run(path, inputs)
        alone = np.concatenate([run(path, inputs[i : i + 1]) for i in range(len(inputs))])
        assert np.abs(together - alone).max() < 1e-6
        assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_every_part_of_a_frame_counts(authored: tuple[Path, Any]) -> None:
    """Changing a pixel of any whole patch, in any channel, changes the embedding."""
    directory, model = authored
    frame = golden_frames(model.image.side)[:1]
    before = run(directory / "image.onnx", frame)
    last = model.image.side // model.image.patch * model.image.patch - 1
    for y, x, channel in ((0, 0, 0), (0, last, 1), (last, 0, 2), (last, last, 0)):
        changed = frame.copy()
        changed[0, y, x, channel] ^= 255
        assert np.abs(run(directory / "image.onnx", changed) - before).max() > 1e-6


def test_tokens_after_the_end_do_not_count_for_clip(tiny: Tiny, tmp_path: Path) -> None:
    """CLIP reads up to the first end token; the mask hides what follows."""
    model = describe(Checkpoint.open(tiny("clip-gelu")))
    author_text(model.text, model.embedding).save(tmp_path / "text.onnx")
    tokens = golden_tokens(model.text)[:1]
    after = tokens.copy()
    after[0, 5:] = 7
    assert np.array_equal(run(tmp_path / "text.onnx", tokens), run(tmp_path / "text.onnx", after))
    before = tokens.copy()
    before[0, 1] = 7 if tokens[0, 1] != 7 else 8
    assert not np.array_equal(run(tmp_path / "text.onnx", tokens), run(tmp_path / "text.onnx", before))


def test_openvino_answers_as_onnx_runtime_does(authored: tuple[Path, Any]) -> None:
    """The same files serve the second engine."""
    openvino = pytest.importorskip("openvino")
    directory, model = authored
    for tower, inputs in (("image", golden_frames(model.image.side)), ("text", golden_tokens(model.text))):
        compiled = openvino.Core().compile_model(
            directory / f"{tower}.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        answer = compiled([inputs])[0]
        assert np.abs(answer - run(directory / f"{tower}.onnx", inputs)).max() < 1e-5


def test_exporting_twice_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    """Sharded or not, the graph is the same file: hashes of bundles can be compared."""
    for name, shards in (("a", 1), ("b", 4)):
        model = describe(Checkpoint.open(tiny("siglip", shards=shards)))
        author_image(model.image, model.embedding).save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
