"""The default model's own quantised graphs: built by TensorRT's rules, and as accurate as its fp32 tower."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.calibration.emulate import emulate
from overflight.calibration.graph import open_session
from overflight.calibration.repeat import repeat
from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import EngineError
from overflight.runtime.evaluation.frame_sampler import FrameSampler

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "models" / "calibration"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if not (default_bundle() / "manifest.json").is_file():
        pytest.skip("no default bundle; run: make bundle")
    copy = tmp_path_factory.mktemp("default") / "bundle"
    shutil.copytree(default_bundle(), copy)
    made, _, _ = repeat(Bundle.open(copy), RECIPE)
    return made


@pytest.mark.parametrize("graph", ["image.fp16.onnx", "image.int8.onnx"])
def test_the_default_models_graphs_build(bundle: Bundle, tmp_path: Path, graph: str) -> None:
    """TensorRT for RTX parses and builds both, strongly typed, without a GPU."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="the gate for graphs needs: pip install tensorrt-rtx")
    from overflight.export.plan import PlanSettings, build_plan

    build_plan(rtx, bundle.file(graph), tmp_path / "plan", PlanSettings(1 << 30))
    assert (tmp_path / "plan").stat().st_size > 1_000_000


def test_the_default_models_asymmetric_graph_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """The form for ONNX Runtime is not one for TensorRT, and says so."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="the gate for graphs needs: pip install tensorrt-rtx")
    from overflight.export.derive import derive
    from overflight.export.plan import PlanSettings, build_plan

    derive(bundle.file("image.int8.onnx"), tmp_path / "u8.onnx", "static")
    with pytest.raises(EngineError, match=r"(?i)zero.point"):
        build_plan(rtx, tmp_path / "u8.onnx", tmp_path / "plan", PlanSettings(1 << 30))


@pytest.mark.data
@pytest.mark.skipif("OVERFLIGHT_ACCURACY" not in os.environ, reason="a quarter of an hour: OVERFLIGHT_ACCURACY=1")
def test_quantising_costs_no_accuracy(
    bundle: Bundle, imagery: Path, tmp_path: Path, embed_texts: Callable[[list[str]], NDArray[np.float32]]
) -> None:
    """Zero-shot over the 30 scenes of the test split: int8 loses at most 0.5 points, fp16 (emulated) at most 0.1."""
    from overflight.export.derive import derive

    with zipfile.ZipFile(imagery / "aid_rsicd.zip") as archive:
        lines = [json.loads(line) for line in archive.read("captions.jsonl").splitlines()]
        archive.extractall(tmp_path, [line["file"] for line in lines if line["split"] == "test"])
    gathered = list(FrameSampler([str(tmp_path)], bundle.manifest.resize, 2000).frames())
    scenes = sorted({str(one.folder) for one in gathered})
    frames = np.stack([one.pixels for one in gathered])
    truth = np.array([scenes.index(str(one.folder)) for one in gathered])
    labels = embed_texts([f"an aerial image of {_spaced(scene)}." for scene in scenes])

    def accuracy(graph: bytes) -> float:
        session: Any = open_session(graph)
        parts = [session.run(["embeddings"], {"frames": frames[at : at + 16]})[0] for at in range(0, len(frames), 16)]
        return float(((np.concatenate(parts) @ labels.T).argmax(axis=1) == truth).mean())

    whole = accuracy(bundle.file("image.onnx").read_bytes())
    half = accuracy(emulate(bundle.file("image.fp16.onnx").read_bytes()))
    derive(bundle.file("image.int8.onnx"), tmp_path / "int8.onnx", "static")
    int8 = accuracy((tmp_path / "int8.onnx").read_bytes())
    print(f"\n{len(gathered)} frames: fp32 {whole:.2%}, fp16 {half:.2%}, int8 {int8:.2%}")
    assert whole > 0.7
    assert half >= whole - 0.001
    assert int8 >= whole - 0.005


def _spaced(scene: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in scene).strip()


@pytest.fixture(scope="module")
def embed_texts(bundle: Bundle) -> Callable[[list[str]], NDArray[np.float32]]:
    pytest.importorskip("sentencepiece")
    from overflight.export.tokenise import Tokeniser

    tokeniser = Tokeniser.read(bundle.directory / "tokenizer", bundle.manifest.tokenising)
    session = open_session(bundle.file("text.onnx").read_bytes())
    return lambda texts: np.asarray(session.run(["embeddings"], {"tokens": tokeniser.encode(texts)})[0])
