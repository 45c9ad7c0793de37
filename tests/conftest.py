"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.bundle import Bundle, Manifest, Resize, Tokenising, seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.calibration.calibrate import Calibration
    from overflight.export.tower import ImageTower

# A busy machine must not fail a property: no deadline, no timed health check. CI draws the same examples every time.
settings.register_profile(
    "overflight", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("overflight")

Made = TypeVar("Made")

COLOURS = {"red": (255, 40, 40), "green": (40, 255, 40), "blue": (40, 40, 255)}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """Return what ``make`` makes in a folder of its own: once in a run, and read back by the other pytest workers."""
    root = factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / f"shared-{name}"
    kept = shared.with_suffix(".pickle")
    with FileLock(f"{shared}.lock"):
        if not kept.is_file():
            shared.mkdir(exist_ok=True)
            kept.write_bytes(pickle.dumps(make(shared)))
        made: Made = pickle.loads(kept.read_bytes())
        return made


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every test away from the engines and the trusted keys of this machine's user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERFLIGHT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(tmp_path_factory.mktemp("no-keys") / "none"))
        yield


@pytest.fixture(scope="session")
def imagery() -> Path:
    """Return the real imagery next to the checkout; skip without it."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real imagery at {path}")
    return path


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle whose "tower" embeds the mean colour: a real graph with answers that can be reasoned about."""
    onnx = pytest.importorskip("onnx", reason="writing the tiny graph needs the export extra")
    helper, kind = onnx.helper, onnx.TensorProto
    directory = tmp_path_factory.mktemp("bundle")
    centre = onnx.numpy_helper.from_array(np.full(3, 100, np.float32), "centre")
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=kind.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "centre"], ["centred"]),
        helper.make_node("ReduceL2", ["centred", "last"], ["length"], keepdims=1),
        helper.make_node("Div", ["centred", "length"], ["embeddings"]),
    ]
    axes = onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    last = onnx.numpy_helper.from_array(np.array([1]), "last")
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("frames", kind.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("embeddings", kind.FLOAT, ["N", 3])],
        [centre, axes, last],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    (directory / "image.onnx").write_bytes(model.SerializeToString())
    return seal(directory, colour_manifest())


def colour_manifest() -> Manifest:
    """Return the manifest of the colour bundle, before it is sealed."""
    return Manifest(
        schema=1,
        name="mean-colour",
        family="siglip",
        activation="sigmoid",
        width=3,
        logit_scale=float(np.log(10.0)),
        logit_bias=-5.0,
        resize=Resize(32, "bicubic", "squash"),
        tokenising=Tokenising("siglip", 64, 100),
        tower="c" * 64,
        opset=20,
        exporter="tests",
        parity=(),
        files={},
    )


@pytest.fixture(scope="session")
def colour_bank(colour_bundle: Bundle) -> LabelBank:
    """Return the bank that knows red, green and blue."""
    manifest = colour_bundle.manifest
    vectors = np.array(list(COLOURS.values()), np.float32) - 100
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    header = BankHeader(
        schema=1,
        name="colours",
        model=manifest.name,
        tower=manifest.tower,
        activation=manifest.activation,
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        labels=tuple(Label(text, (text,)) for text in COLOURS),
    )
    return LabelBank.make(header, vectors)


def random_tower(side: int = 32, patch: int = 8, width: int = 32, heads: int = 2, blocks: int = 3) -> ImageTower:
    """Return a SigLIP image tower of random weights, its norms uneven as trained ones are."""
    from overflight.bench.device.graphs import random_tower as make

    return make(side, patch, width, heads, blocks, uneven=0.7)


def write_tower_bundle(directory: Path, graph: bytes) -> Bundle:
    """Write a bundle with a real, small, random image tower and its golden vectors."""
    directory.mkdir()
    (directory / "image.onnx").write_bytes(graph)
    frames = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    session = pytest.importorskip("onnxruntime").InferenceSession(graph)
    (embeddings,) = session.run(["embeddings"], {"frames": frames})
    np.savez(directory / "golden.npz", frames=frames, frame_embeddings=embeddings)
    return seal(directory, msgspec.structs.replace(colour_manifest(), name="random-tower", width=32, tower="7" * 64))


@pytest.fixture
def tower_bundle(tmp_path: Path, random_tower_graph: bytes) -> Bundle:
    """Return a fresh bundle of the random tower."""
    return write_tower_bundle(tmp_path / "tower", random_tower_graph)


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory, random_tower_graph: bytes, scenery: Path) -> Calibration:
    """Return a calibration of the random tower, made once."""
    from overflight.calibration.calibrate import calibrate

    def make(folder: Path) -> Calibration:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OVERFLIGHT_HOME", str(folder / "home"))
            return calibrate(write_tower_bundle(folder / "tower", random_tower_graph), [str(scenery)], count=32)

    return made_once(tmp_path_factory, "calibration", make)


@pytest.fixture
def calibrated_bundle(tower_bundle: Bundle, calibration: Calibration) -> Bundle:
    """Return a fresh bundle of the random tower with everything that calibration adds."""
    from overflight.calibration.write_bundle import enrich_with

    return enrich_with(tower_bundle, calibration)


def authored(factory: pytest.TempPathFactory, name: str, width: int, *shape: int) -> Path:
    """Return the graph of a random tower of this width and shape."""
    pytest.importorskip("onnx", reason="authoring a tower needs the export extra")
    from overflight.export.author import author_image

    def make(folder: Path) -> Path:
        author_image(random_tower(*shape), width).save(folder / "image.onnx")
        return folder / "image.onnx"

    return made_once(factory, name, make)


@pytest.fixture(scope="session")
def random_tower_graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the graph of the random tower."""
    return authored(tmp_path_factory, "small", 32).read_bytes()


@pytest.fixture(scope="session")
def base_256_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a graph of SigLIP B/16-256's shape with random weights."""
    return authored(tmp_path_factory, "base-256", 768, 256, 16, 768, 12, 12)


@pytest.fixture(scope="session")
def two_blocks_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a graph of B/16-256 with two of its twelve blocks: a builder treats each block alike."""
    return authored(tmp_path_factory, "two-blocks", 768, 256, 16, 768, 12, 2)


def paint_scenery(folder: Path) -> Path:
    """Paint 96 smooth pictures into the folders ``field`` and ``town``."""
    import cv2

    random = np.random.default_rng(3)
    for index in range(96):
        kind = ("field", "town")[index % 2]
        (folder / kind).mkdir(exist_ok=True)
        coarse = random.integers(0, 256, (4 + index % 5, 4 + index % 3, 3), np.uint8)
        picture = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC if index % 2 else cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / kind / f"{index}.png"), picture)
    return folder


@pytest.fixture(scope="session")
def scenery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 96 synthetic aerial views, smooth like real ones."""
    pytest.importorskip("cv2")
    return made_once(tmp_path_factory, "scenery", paint_scenery)


BOARD_TREES = Path(__file__).parent / "jetson" / "trees"


@cache
def files(name: str) -> dict[str, str]:
    """Read a tree: ``@ PATH`` begins a file, ``\\0`` is a NUL, the lines before the first file are remarks."""
    parts = (BOARD_TREES / f"{name}.txt").read_text(encoding="utf-8").split("\n@ ")[1:]
    return {path: text.replace("\\0", "\0") for path, _, text in (part.partition("\n") for part in parts)}


def grow(name: str, root: Path) -> Path:
    """Write every file of a tree under ``root``."""
    for path, text in files(name).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Grow a tree by name in a folder of its own."""
    return lambda name: grow(name, tmp_path / name)
