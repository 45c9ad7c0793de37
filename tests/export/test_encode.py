"""Encoding gives unit vectors, each distinct text once, and refuses what the tower cannot read whole."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from overflight.export.encode import TextEncoder
from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.errors import BundleError, EngineError, MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def broken(text_bundle: Bundle, tmp_path: Path) -> Callable[[bytes], Bundle]:
    """Return a maker of bundles with another text tower."""

    def make(tower: bytes) -> Bundle:
        directory = tmp_path / "broken"
        shutil.copytree(text_bundle.directory, directory)
        (directory / "text.onnx").write_bytes(tower)
        return seal(directory, text_bundle.manifest)

    return make


def test_vectors_are_unit_float32_in_the_order_given(text_bundle: Bundle) -> None:
    """One row per text, repeated texts included, whatever the batches."""
    texts = [f"river {word}" for word in ["airport", "beach", "bridge", "church", "desert", "farmland", "forest"]] * 4
    with TextEncoder(text_bundle) as encoder:
        vectors = encoder.encode(texts)
        alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert vectors.dtype == np.float32
    assert vectors.shape == (28, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, alone, atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1])


def test_each_distinct_text_is_encoded_once(text_bundle: Bundle) -> None:
    """Repeats, and texts that differ in what the tokeniser drops, cost nothing."""
    progress: list[tuple[int, int]] = []
    with TextEncoder(text_bundle) as encoder:
        encoder.encode(["river", "River.", "river", "beach"], lambda done, total: progress.append((done, total)))
    assert progress == [(2, 2)]


def test_progress_ends_at_the_total(text_bundle: Bundle) -> None:
    """The bar moves with every batch and ends full."""
    progress: list[tuple[int, int]] = []
    with TextEncoder(text_bundle) as encoder:
        encoder.encode_ids(
            [(3, *[1] * 63), *[(number, *[1] * 63) for number in range(4, 40)]], lambda *x: progress.append(x)
        )
    assert progress == [(16, 37), (32, 37), (37, 37)]


def test_no_texts_are_no_vectors(text_bundle: Bundle) -> None:
    """An empty list keeps its second dimension."""
    with TextEncoder(text_bundle) as encoder:
        assert encoder.encode([]).shape == (0, 32)


def test_a_text_longer_than_the_context_is_refused(text_bundle: Bundle) -> None:
    """It is never cut in silence: 64 ids are taken, 65 are not."""
    with TextEncoder(text_bundle) as encoder:
        assert encoder.encode([" ".join(["river"] * 63)]).shape == (1, 32)
        with pytest.raises(UsageError, match="needs 65 tokens, the text tower takes 64"):
            encoder.encode([" ".join(["river"] * 64)])


def test_a_closed_encoder_says_so(text_bundle: Bundle) -> None:
    """Closing twice is safe, encoding afterwards is not."""
    encoder = TextEncoder(text_bundle)
    encoder.close()
    encoder.close()
    with pytest.raises(EngineError, match="was closed"):
        encoder.encode(["river"])


def test_a_tower_that_is_no_graph_is_refused(broken: Callable[[bytes], Bundle]) -> None:
    """ONNX Runtime's own error is wrapped into one that names the file."""
    with pytest.raises(BundleError, match=r"text\.onnx: ONNX Runtime cannot load it"):
        TextEncoder(broken(b"no graph"))


@pytest.mark.parametrize("change", [np.nan, 2.0])
def test_nonsense_from_the_tower_is_refused(
    broken: Callable[[bytes], Bundle], text_bundle: Bundle, change: float
) -> None:
    """Vectors of NaN, or not of unit length, never reach a bank."""
    import onnx

    model = onnx.load_from_string((text_bundle.directory / "text.onnx").read_bytes())
    factor = onnx.numpy_helper.from_array(np.array(change, np.float32), "factor")
    model.graph.initializer.append(factor)
    model.graph.node[-1].output[0] = "unscaled"
    model.graph.node.append(onnx.helper.make_node("Mul", ["unscaled", "factor"], ["embeddings"]))
    with TextEncoder(broken(model.SerializeToString())) as encoder, pytest.raises(EngineError, match="unit length"):
        encoder.encode(["river"])


def test_a_changed_tokenizer_is_refused(text_bundle: Bundle, tmp_path: Path) -> None:
    """The tokenizer files are checked against the manifest, like the tower."""
    directory = tmp_path / "changed"
    shutil.copytree(text_bundle.directory, directory)
    (directory / "tokenizer" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(BundleError, match="changed or damaged"):
        TextEncoder(Bundle.open(directory))


def test_a_bundle_without_a_text_tower_says_so(text_bundle: Bundle, tmp_path: Path) -> None:
    """A bundle stripped for the aircraft cannot make banks."""
    directory = tmp_path / "stripped"
    shutil.copytree(text_bundle.directory, directory, ignore=shutil.ignore_patterns("text.onnx"))
    with pytest.raises(MissingError, match=r"holds no text\.onnx"):
        TextEncoder(seal(directory, text_bundle.manifest))


def test_without_onnxruntime_the_extra_is_named(text_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is reported with the command that installs it."""
    import sys

    no_module: Any = None
    monkeypatch.setitem(sys.modules, "onnxruntime", no_module)
    with pytest.raises(MissingError, match=r"overflight\[cpu\]"):
        TextEncoder(text_bundle)
