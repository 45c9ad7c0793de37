"""The graphs that the steps run: a bundle's, or a B/16-256 of random weights, in fp32, fp16 and int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.export.tower import ImageTower

FRAMES = 16
NAMES = ("fp32", "fp16", "int8-joined", "int8-parted")


def graph_of(work: Path, name: str) -> Path:
    """Return where a graph lies."""
    return work / f"{name}.onnx"


def write_graphs(work: Path, bundle: Path | None) -> dict[str, int]:
    """Write every graph, frames and the fp32 reference's answers; returns the graphs' sizes in bytes.

    An uncalibrated bundle gets scales from these frames' extremes: enough for time and counts, not for a flight.
    """
    from overflight.calibration.clip import half
    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.halve import halve
    from overflight.calibration.quantise import eligible, quantise
    from overflight.calibration.ranges import extremes
    from overflight.calibration.recipe import ProductRecipe, Recipe
    from overflight.export.derive import derive

    source = graph_of(work, "fp32")
    if bundle is None:
        _write_random(source)
    else:
        source.write_bytes((bundle / "image.onnx").read_bytes())
    tower = TowerGraph.open(source)
    side = tower.model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    frames = np.random.default_rng(5).integers(0, 256, (FRAMES, side, side, 3), np.uint8)
    np.save(work / "frames.npy", frames)
    if (given := _given(bundle, "fp16")) is not None:
        graph_of(work, "fp16").write_bytes(given)
    else:
        graph_of(work, "fp16").write_bytes(halve(tower).encoded())
    if (given := _given(bundle, "int8")) is not None:
        graph_of(work, "int8-joined").write_bytes(given)
    else:
        reached = extremes(tower, frames[:2])
        rows = tuple(ProductRecipe(one.name, half(reached[one.reads] / 127), "max", 0, 0) for one in eligible(tower))
        quantised = quantise(tower, Recipe(1, "7" * 64, rows, {}, (), {}), {})
        graph_of(work, "int8-joined").write_bytes(halve(quantised).encoded())
    derive(graph_of(work, "int8-joined"), graph_of(work, "int8-parted"), "parted")
    np.save(work / "reference.npy", _reference(source, frames))
    return {name: graph_of(work, name).stat().st_size for name in NAMES}


def _given(bundle: Path | None, precision: str) -> bytes | None:
    path = None if bundle is None else bundle / f"image.{precision}.onnx"
    return path.read_bytes() if path is not None and path.is_file() else None


def _reference(graph: Path, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    from overflight.runtime.engines.ort import OnnxRuntimeEngine

    engine = OnnxRuntimeEngine(graph, "0" * 64)
    try:
        return np.concatenate([engine.embed(frame[None]) for frame in frames])
    finally:
        engine.close()


def _write_random(path: Path) -> None:
    from overflight.export.author import author_image

    author_image(random_tower(256, 16, 768, 12, 12), 768).save(path)


def random_tower(side: int, patch: int, width: int, heads: int, blocks: int, *, uneven: float = 0.0) -> ImageTower:
    """Return a SigLIP image tower of this shape with random weights: it takes the time of a trained one.

    ``uneven`` is the standard deviation of the logarithm of its norms' weights; trained ones are uneven.
    """
    from overflight.export.tower import (
        Attention,
        Block,
        Encoder,
        ImageTower,
        Linear,
        Mlp,
        Norm,
        Pixels,
        ProbePool,
        Weight,
    )

    random = np.random.default_rng(7)

    def weight(*shape: int, size: float | None = None) -> Weight:
        scale = shape[0] ** -0.5 if size is None else size
        array = random.standard_normal(shape, np.float32) * np.float32(scale)
        return Weight(shape, lambda: array)

    def linear(inner: int, outer: int) -> Linear:
        return Linear(weight(inner, outer), weight(outer, size=0.1))

    def norm() -> Norm:
        gain = np.exp(uneven * random.standard_normal(width)).astype(np.float32)
        return Norm(Weight((width,), lambda: gain), weight(width, size=0.1), 1e-6)

    def attention() -> Attention:
        query, key, value, output = (linear(width, width) for _ in range(4))
        return Attention(query, key, value, output, heads=heads)

    def mlp() -> Mlp:
        return Mlp(linear(width, 4 * width), linear(4 * width, width), "gelu-tanh")

    tokens = (side // patch) ** 2
    encoder = Encoder(
        length=tokens,
        width=width,
        positions=weight(tokens, width, size=0.3),
        blocks=tuple(Block(norm(), attention(), norm(), mlp()) for _ in range(blocks)),
        norm=norm(),
        pool=ProbePool(weight(width, size=1.0), attention(), norm(), mlp()),
        projection=None,
    )
    pixels = Pixels(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return ImageTower(side, patch, pixels, linear(3 * patch**2, width), None, None, encoder)
