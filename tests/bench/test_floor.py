"""The floor: operations and bytes of graphs whose work is known."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from overflight.bench.floor import Work, count, floor_of
from overflight.bench.peak import AMOUNTS, SHAPES, _integer, _single, peak_calls

onnx = pytest.importorskip("onnx", reason="counting reads graphs")


def test_one_product_is_counted_exactly(tmp_path: Path) -> None:
    """Two operations per multiply-add; weights, input and output once each."""
    rows, depth, columns = SHAPES[0]
    (tmp_path / "a.onnx").write_bytes(_single(SHAPES[0]))
    work = count(tmp_path / "a.onnx")
    assert work.operations == {"fp32": 2 * rows * depth * columns}
    assert work.bytes == 4 * (depth * columns + rows * depth + rows * columns)


def test_quantised_products_are_told_apart(tmp_path: Path) -> None:
    """Integer operators and products between Q/DQ pairs alike."""
    for library in ("onnxruntime", "openvino"):
        (tmp_path / "a.onnx").write_bytes(_integer(library, SHAPES[0]))
        assert count(tmp_path / "a.onnx").operations == {"int8": int(AMOUNTS["int8"])}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_peak_does_the_same_work(shape: tuple[int, int, int]) -> None:
    """Repeated a whole number of times, so that times of different shapes can be compared."""
    rows, depth, columns = shape
    assert int(AMOUNTS["fp32"]) % (2 * rows * depth * columns) == 0


def test_a_towers_operations_are_the_model_cards(tmp_path: Path) -> None:
    """An authored tower of known sizes against the formula of open_clip's profile, without what is not pooled."""
    from overflight.bench.floor import count as counted

    width, tokens, inner, blocks = 64, 16, 256, 2
    graph = _tower(tmp_path, width, inner, blocks)
    per_block = 2 * tokens * (4 * width * width + 2 * width * inner) + 4 * tokens * tokens * width
    found = counted(graph).operations["fp32"]
    assert found == pytest.approx(blocks * per_block, rel=0.25)  # patches and the pool come on top
    assert counted(graph, 4).operations["fp32"] == pytest.approx(4 * found, rel=0.02)


def test_a_share_is_taken_by_pairs() -> None:
    """When engine and peak are slowed together, the share stays."""
    weather = np.array([1, 5, 2, 9, 3])
    samples = [int(2e6 * slow) for slow in weather]
    peaks = {"fp32": [int(1e6 * slow) for slow in weather], "bytes": [1] * 5}
    found = floor_of(Work({"fp32": 1000}, 10), samples, peaks, {"fp32": 1000.0, "bytes": 1e9})
    assert found.share == pytest.approx(0.5)


def test_a_graph_that_moves_more_than_it_computes_is_bound_by_memory() -> None:
    """The floor is the longer of the two."""
    peaks = {"fp32": [100] * 3, "bytes": [1000] * 3}
    found = floor_of(Work({"fp32": 10}, 50), [2000] * 3, peaks, {"fp32": 10.0, "bytes": 100.0})
    assert found.floor_ns == pytest.approx(500)


def test_peaks_can_be_called() -> None:
    """ONNX Runtime's products and the copy run."""
    pytest.importorskip("onnxruntime")
    for call in peak_calls("onnxruntime", 1).values():
        call()


def _tower(folder: Path, width: int, inner: int, blocks: int) -> Path:
    spec = spec_from_file_location("writers", Path(__file__).parents[1] / "export" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    writers = module_from_spec(spec)
    spec.loader.exec_module(writers)
    from overflight.export.author import author_image
    from overflight.export.checkpoint import Checkpoint
    from overflight.export.describe import describe

    settings = json.loads(json.dumps(writers.TINY["siglip2"]))
    vision = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks, "num_attention_heads": 4}
    settings["vision_config"] |= vision | {"image_size": 32, "patch_size": 8}
    settings["text_config"] |= {"hidden_size": width, "num_attention_heads": 4}
    settings["text_config"]["projection_size"] = width
    model = describe(Checkpoint.open(writers.write_checkpoint(folder / "checkpoint", settings)))
    author_image(model.image, model.embedding).save(folder / "image.onnx", lambda share: None)
    return folder / "image.onnx"
