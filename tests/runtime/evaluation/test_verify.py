"""``overflight verify``: files, golden vectors, and the engine that would fly.

Covers: runtime/commands/verify.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime.bundle import Bundle, seal
from overflight.runtime.commands.verify import command
from overflight.runtime.engines import device_name, versions
from overflight.runtime.engines.record import EngineRecord
from overflight.runtime.errors import BundleError, EngineError, MissingError
from overflight.runtime.evaluation.fidelity import judge, measure
from overflight.runtime.evaluation.verify import verify
from overflight.runtime.store import SCHEMA, Store


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))


def store_int8(bundle: Bundle) -> None:
    """Put the bundle's int8 graph into the store as it is, proven."""
    rows = np.eye(3, dtype=np.float32)
    sha256 = bundle.manifest.files["image.int8.onnx"]
    record = EngineRecord(
        schema=SCHEMA,
        bundle=bundle.sha256,
        target="onnxruntime-cpu",
        precision="int8",
        variant="",
        graph="image.int8.onnx",
        graph_sha256=sha256,
        file=None,
        sha256=sha256,
        size_bytes=1,
        versions=versions("onnxruntime-cpu"),
        device=device_name("onnxruntime-cpu"),
        max_batch=1,
        built_utc="2026-01-01T00:00:00Z",
        build_s=0.0,
        verdict=judge(measure(rows, rows), "int8"),
    )
    store = Store(bundle)
    with store.lock(), store.staging() as staged:
        store.set_default(store.put(staged, record))


def test_a_whole_bundle_replays_its_golden_vectors(tower_bundle: Bundle) -> None:
    """With nothing built the reference is what flies."""
    found = verify(tower_bundle)
    assert found.passed
    assert found.golden_max_abs < 1e-5
    assert (found.engine, found.fidelity) == ("onnxruntime-cpu fp32", None)


def test_the_engine_that_flies_is_held_to_the_hold_out(calibrated_bundle: Bundle) -> None:
    """A proven int8 engine passes; one whose graph went wrong since is caught, with exit code 1 and the figure."""
    store_int8(calibrated_bundle)
    found = verify(calibrated_bundle)
    assert found.passed
    assert found.engine == "onnxruntime-cpu int8"
    assert found.fidelity is not None
    assert found.fidelity.samples >= 20
    onnx = pytest.importorskip("onnx")
    path = calibrated_bundle.directory / "image.int8.onnx"
    model = onnx.load(str(path))
    scale = next(one for one in model.graph.initializer if ".weight.scale" in one.name)
    array = onnx.numpy_helper.to_array(scale)
    scale.CopyFrom(onnx.numpy_helper.from_array((array * 8).astype(array.dtype), scale.name))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="SHA-256"):
        verify(Bundle.open(calibrated_bundle.directory))
    spoilt = seal(calibrated_bundle.directory, calibrated_bundle.manifest)
    store_int8(spoilt)
    done = CliRunner().invoke(command, [str(spoilt.directory)])
    assert isinstance(done.exception, EngineError)
    assert "is below" in str(done.exception)


def test_golden_vectors_of_another_tower_fail(tower_bundle: Bundle) -> None:
    """One number moved by a thousandth is enough."""
    path = tower_bundle.directory / "golden.npz"
    with np.load(path) as golden:
        frames, embeddings = golden["frames"], golden["frame_embeddings"].copy()
    embeddings[1, 5] += 1e-3
    np.savez(path, frames=frames, frame_embeddings=embeddings)
    found = verify(seal(tower_bundle.directory, tower_bundle.manifest))
    assert not found.passed
    assert "golden vectors differ" in found.reasons[0]


def test_what_cannot_be_replayed_is_reported(colour_bundle: Bundle, tower_bundle: Bundle) -> None:
    """No golden vectors, or a file that is none."""
    with pytest.raises(MissingError, match=r"golden\.npz"):
        verify(colour_bundle)
    (tower_bundle.directory / "golden.npz").write_bytes(b"PK\3\4")
    with pytest.raises(BundleError, match="golden vectors"):
        verify(seal(tower_bundle.directory, tower_bundle.manifest))


def test_the_command_prints(tower_bundle: Bundle) -> None:
    """A line for people, or JSON for machines."""
    done = CliRunner().invoke(command, [str(tower_bundle.directory)])
    assert done.exit_code == 0, done.output
    assert "largest difference" in done.stdout
    done = CliRunner().invoke(command, [str(tower_bundle.directory), "--json"])
    reported = json.loads(done.stdout)
    assert reported["passed"] is True
    assert msgspec.json.decode(done.stdout)["engine"] == "onnxruntime-cpu fp32"
