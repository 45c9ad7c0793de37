"""The file a graph becomes: valid protobuf written by hand, weights inside or next to it.

Covers: export/tower.py.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

from overflight.export import graph as graph_module
from overflight.export.graph import Graph, _varint
from overflight.export.tower import Weight

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any


def doubling(sizes: tuple[int, ...]) -> tuple[Graph, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """x · w0 · w1 …, from random weights."""
    made = Graph("chain")
    x = made.take("x", "float32", ["N", sizes[0]])
    weights = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weights.append(np.random.default_rng(number).standard_normal((inputs, outputs), dtype=np.float32))
        x = made.node(
            f"w{number}",
            "MatMul",
            x,
            made.weight(f"w{number}.weight", Weight(weights[-1].shape, weights[-1].__array__)),
        )
    made.node("y", "Reshape", x, made.integers(0, -1))
    made.give("y", "float32", ["N", sizes[-1]])
    return made, weights


def run(path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("external", [False, True])
def test_a_saved_graph_is_valid_and_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool) -> None:
    """Inline or external, the checker is content and the products are right."""
    if external:
        monkeypatch.setattr(graph_module, "EXTERNAL_ABOVE_BYTES", 10_000)
    made, weights = doubling((3, 5000, 7, 2))
    path = tmp_path / "chain.onnx"
    made.save(path)
    onnx.checker.check_model(path, full_check=True)
    x = np.ones((2, 3), dtype=np.float32)
    assert np.allclose(run(path, x), x @ weights[0] @ weights[1] @ weights[2], rtol=1e-4)
    assert (tmp_path / "chain.onnx.data").exists() == external
    assert (path.stat().st_size < 2000) == external


def test_the_hand_written_form_is_protobufs_own(tmp_path: Path) -> None:
    """Reading and serialising again gives the same size: lengths are exact, nothing is left over or read twice."""
    made, _ = doubling((3, 300, 40))
    made.save(tmp_path / "chain.onnx")
    model = onnx.load(tmp_path / "chain.onnx")
    assert model.ByteSize() == (tmp_path / "chain.onnx").stat().st_size
    assert [i.name for i in model.graph.initializer] == ["chain.integers.0_-1", "w0.weight", "w1.weight"]
    assert model.opset_import[0].version == 20


def test_external_weights_start_on_pages_and_small_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines can map what lies outside; what shape inference reads lies inside."""
    monkeypatch.setattr(graph_module, "EXTERNAL_ABOVE_BYTES", 10_000)
    made, _ = doubling((3, 5000, 7, 2))
    made.save(tmp_path / "chain.onnx")
    model = onnx.load(tmp_path / "chain.onnx", load_external_data=False)
    inside = {i.name for i in model.graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL}
    assert inside == {"chain.integers.0_-1", "w2.weight"}
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert int(entries.get("offset", 0)) % 4096 == 0


def test_a_name_is_given_once(tmp_path: Path) -> None:
    """Two weights of one name are a mistake in the author."""
    made, _ = doubling((3, 4))
    with pytest.raises(AssertionError, match=r"w0\.weight"):
        made.weight("w0.weight", Weight((1,), lambda: np.zeros(1, dtype=np.float32)))


@pytest.mark.parametrize(("value", "encoded"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varints_are_protobufs(value: int, encoded: str) -> None:
    """The examples of protobuf's own documentation."""
    assert _varint(value).hex() == encoded


def test_a_weight_is_read_only_when_it_is_written(tmp_path: Path) -> None:
    """Authoring reads nothing, so it costs no memory."""
    read: list[str] = []

    def reading() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        read.append("w")
        return np.ones((3, 4), dtype=np.float32)

    made = Graph("lazy")
    made.node("y", "MatMul", made.take("x", "float32", ["N", 3]), made.weight("w", Weight((3, 4), reading)))
    made.give("y", "float32", ["N", 4])
    assert read == []
    made.save(tmp_path / "lazy.onnx")
    assert read == ["w"]
