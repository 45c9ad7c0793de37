"""The proof fails when it should.

Covers: export/reference_numpy.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.export.author import author_image, author_text
from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.prove import golden_frames, golden_tokens, prove
from overflight.export.reference_numpy import NumpyReference
from overflight.export.tower import ImageTower, Linear, Model, Weight
from overflight.runtime.errors import EngineError

Tiny = Callable[..., Path]


@pytest.fixture
def opened(tiny: Tiny) -> tuple[Checkpoint, Model]:
    """A tiny SigLIP and its description."""
    checkpoint = Checkpoint.open(tiny("siglip"))
    return checkpoint, describe(checkpoint)


def author(model: Model, directory: Path) -> None:
    author_image(model.image, model.embedding).save(directory / "image.onnx")
    author_text(model.text, model.embedding).save(directory / "text.onnx")


def reference(checkpoint: Checkpoint, model: Model) -> NumpyReference:
    return NumpyReference(checkpoint, clip=False, pixels=model.image.pixels)


def with_block(model: Model, **changes: Any) -> Model:
    """The model with its first image block changed."""
    assert isinstance(model.image, ImageTower)
    encoder = model.image.encoder
    blocks = (dataclasses.replace(encoder.blocks[0], **changes), *encoder.blocks[1:])
    image = dataclasses.replace(model.image, encoder=dataclasses.replace(encoder, blocks=blocks))
    return dataclasses.replace(model, image=image)


def test_swapped_norms_are_noticed(opened: tuple[Checkpoint, Model], tmp_path: Path) -> None:
    """A description that takes one tensor for another of the same shape does not pass."""
    checkpoint, model = opened
    assert isinstance(model.image, ImageTower)
    first = model.image.encoder.blocks[0]
    author(with_block(model, norm1=first.norm2, norm2=first.norm1), tmp_path)
    with pytest.raises(EngineError, match=r"image.onnx: differs from float64, numpy .* expected at most 1e-05"):
        prove(tmp_path, model, reference(checkpoint, model))
    assert not (tmp_path / "golden.npz").exists()


def test_a_wrong_activation_is_noticed(opened: tuple[Checkpoint, Model], tmp_path: Path) -> None:
    """GELU and its tanh form differ by less than 1e-3, and still do not pass for each other."""
    checkpoint, model = opened
    assert isinstance(model.image, ImageTower)
    mlp = dataclasses.replace(model.image.encoder.blocks[0].mlp, activation="gelu-tanh")
    author(with_block(model, mlp=mlp), tmp_path)
    with pytest.raises(EngineError, match="differs"):
        prove(tmp_path, model, reference(checkpoint, model))


def replaced(model: Model, patches: Weight, positions: Weight) -> Model:
    assert isinstance(model.image, ImageTower)
    encoder = dataclasses.replace(model.image.encoder, positions=positions)
    image = dataclasses.replace(model.image, patches=Linear(patches, model.image.patches.bias), encoder=encoder)
    return dataclasses.replace(model, image=image)


class Echo:
    """A reference that agrees with whatever the graph says."""

    name = "echo"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def embed_frames(self, frames: Any, report: Any = None) -> Any:
        return self._run("image", frames)

    def embed_tokens(self, tokens: Any, report: Any = None) -> Any:
        return self._run("text", tokens)

    def _run(self, tower: str, inputs: Any) -> Any:
        import onnxruntime

        session = onnxruntime.InferenceSession(self.directory / f"{tower}.onnx", providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def test_a_tower_that_sees_nothing_is_noticed(opened: tuple[Checkpoint, Model], tmp_path: Path) -> None:
    """Patches of zero weight embed every frame alike: parity alone would be content."""
    _, model = opened
    assert isinstance(model.image, ImageTower)
    shape = model.image.patches.weight.shape
    blind = replaced(model, Weight(shape, lambda: np.zeros(shape, np.float32)), model.image.encoder.positions)
    author(blind, tmp_path)
    with pytest.raises(EngineError, match=r"image\.onnx: a changed input changes nothing"):
        prove(tmp_path, model, Echo(tmp_path))


def test_damaged_weights_are_noticed(opened: tuple[Checkpoint, Model], tmp_path: Path) -> None:
    """A NaN in the checkpoint ends the export."""
    _, model = opened
    assert isinstance(model.image, ImageTower)
    shape = model.image.encoder.positions.shape
    torn = replaced(model, model.image.patches.weight, Weight(shape, lambda: np.full(shape, np.nan, np.float32)))
    author(torn, tmp_path)
    with pytest.raises(EngineError, match="not of unit length"):
        prove(tmp_path, model, Echo(tmp_path))


def test_golden_inputs_are_the_same_for_ever(opened: tuple[Checkpoint, Model]) -> None:
    """Other machines and library versions make the same frames and tokens."""
    _, model = opened
    frames, tokens = golden_frames(30), golden_tokens(model.text)
    assert [int(frame.sum()) for frame in frames] == [343830, 336303, 340394]
    assert tokens[0].tolist() == [2, 33, 56, 1, 1, 1, 1, 1, 1, 1, 1, 1]
