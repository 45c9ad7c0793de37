"""The engines next to the reference: OpenVINO on this processor, ONNX Runtime CUDA on a fake one.

Covers: runtime/engines/engine.py, runtime/engines/openvino.py, runtime/engines/ort.py, runtime/engines/ort_cuda.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import ort_cuda
from overflight.runtime.engines.openvino import OpenVinoEngine, native_islands, write_compiled
from overflight.runtime.engines.ort import OnnxRuntimeEngine
from overflight.runtime.engines.ort_cuda import PROVIDER, CudaEngine
from overflight.runtime.errors import EngineError, MissingError
from overflight.runtime.evaluation.fidelity import measure


def frames(count: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3))
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2).astype(np.uint8)


@pytest.mark.parametrize("graph", ["image.onnx", "image.fp16.onnx", "image.int8.onnx"])
def test_openvino_answers_as_onnx_runtime(calibrated_bundle: Bundle, graph: str) -> None:
    """The same file, the same answers, at any batch; int8 within what rounding may differ."""
    pytest.importorskip("openvino")
    path = calibrated_bundle.file(graph)
    made, reference = OpenVinoEngine(path, "a", "int8"), OnnxRuntimeEngine(path, "a")
    assert (made.side, made.width) == (32, 32)
    assert made.info.target == "openvino-cpu"
    assert "f32" in made.info.provider
    for count in (1, 5, 2):
        batch = frames(count)
        found = measure(reference.embed(batch), made.embed(batch).copy())
        assert found.cosine_min > (0.99999 if graph == "image.onnx" else exact_int8())
    made.close()
    made.close()


def exact_int8() -> float:
    """Return the cosine that int8 reaches here: without VNNI, x86 adds pairs of u8·s8 products in 16 bits and clips."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return 0.999 if "avx512_vnni" in flags or "avx_vnni" in flags or "avx2" not in flags else 0.98


def test_onnx_runtime_does_not_call_home(calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """What is seen from a drone is nobody else's: no device id, no database of events, no thread that sends them."""
    code = (
        "import sys\nfrom overflight.runtime.engines.ort import OnnxRuntimeEngine\nOnnxRuntimeEngine(sys.argv[1], 'a')"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    order = [sys.executable, "-c", code, str(calibrated_bundle.file("image.onnx"))]
    subprocess.run(order, env=environment, check=True)
    assert list(home.rglob("*")) == []


def test_openvino_takes_the_requested_float_type(calibrated_bundle: Bundle) -> None:
    """Left to itself it would compute an fp32 graph in bf16 on processors that can, and not say so."""
    pytest.importorskip("openvino")
    for islands in native_islands():
        made = OpenVinoEngine(calibrated_bundle.file("image.onnx"), "a", "fp32", islands=islands)
        assert {"f32": "f32", "bf16": "bf16"}[islands] in made.info.provider


def test_openvino_refuses_what_is_no_tower(tmp_path: Path) -> None:
    """With one line."""
    pytest.importorskip("openvino")
    (tmp_path / "image.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="OpenVINO cannot load it"):
        OpenVinoEngine(tmp_path / "image.onnx", "a", "fp32")


def resident_kb(path: Path) -> int:
    """Return how much of a mapped file is in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        int(next(row for row in lines if row.startswith("Rss:")).split()[1])
        for line in lines
        if line.endswith(str(path))
    )


@pytest.mark.parametrize("graph", ["image.onnx", "image.int8.onnx"])
def test_a_compiled_tower_answers_as_its_graph(calibrated_bundle: Bundle, tmp_path: Path, graph: str) -> None:
    """In the float type it was compiled for, on as many threads as asked, and even when its file has been replaced."""
    pytest.importorskip("openvino")
    batch, path = frames(3), tmp_path / "image.blob"
    for islands in native_islands():
        write_compiled(calibrated_bundle.file(graph), path, islands=islands)
        made = OpenVinoEngine(path, "a", "int8", islands=islands, threads=1)
        assert resident_kb(path) == 0, "the library has its own copy: the file's pages were to be given back"
        path.unlink()
        expected = OpenVinoEngine(calibrated_bundle.file(graph), "a", "int8", islands=islands, threads=1)
        most = 0.0 if islands == "f32" else 5e-3  # where a bf16 tower is rounded is the library's affair
        np.testing.assert_allclose(made.embed(batch), expected.embed(batch), rtol=0, atol=most)
        assert made._compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert made.info == expected.info


@pytest.mark.parametrize("content", [b"", b"not a tower", b"torn"])
def test_openvino_refuses_a_file_that_it_did_not_write(
    calibrated_bundle: Bundle, tmp_path: Path, content: bytes
) -> None:
    """With one line that says what to do; a torn file's hash is refused before, this is for what slips through."""
    pytest.importorskip("openvino")
    path = tmp_path / "image.blob"
    write_compiled(calibrated_bundle.file("image.int8.onnx"), path)
    path.write_bytes(path.read_bytes()[:5000] if content == b"torn" else content)
    with pytest.raises(EngineError, match=r"OpenVINO cannot load it .*; run: overflight build$"):
        OpenVinoEngine(path, "a", "int8")


class FakeValue:
    """A buffer on the fake GPU."""

    def __init__(self, shape: list[int], kind: Any, device: str, number: int) -> None:
        assert (device, number) == ("cuda", 0)
        self.array = np.zeros(shape, kind)

    def update_inplace(self, values: NDArray[Any]) -> None:
        assert values.shape == self.array.shape
        assert values.flags.c_contiguous
        self.array[:] = values

    def numpy(self) -> NDArray[Any]:
        return self.array


class FakeSession:
    """A session that runs what is bound; a graph id belongs to one shape, as a captured graph does."""

    def __init__(self, path: str, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        settings = providers[0][1]
        assert all(isinstance(value, str) for value in settings.values()), "the library takes strings only"
        self.graphs = settings.get("enable_cuda_graph") == "1"
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.got = [PROVIDER, "CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        return self.got

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="frames", shape=["N", 32, 32, 3])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="embeddings", shape=["N", 4])]

    def io_binding(self) -> Any:
        bound: dict[str, FakeValue] = {}
        return SimpleNamespace(
            bound=bound, bind_ortvalue_input=bound.__setitem__, bind_ortvalue_output=bound.__setitem__
        )

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        frames, answers = binding.bound["frames"].array, binding.bound["embeddings"].array
        graph = options.entries.get("gpu_graph_id", str(len(frames)))
        assert self.graphs == ("gpu_graph_id" in options.entries)
        assert self.shapes.setdefault(graph, frames.shape) == frames.shape, "a captured graph has one shape"
        answers[:] = frames.reshape(len(frames), 4, -1).sum(axis=2)


def fake_onnxruntime(session: type[FakeSession] = FakeSession) -> Any:
    class Options:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}
            self.add_run_config_entry = self.entries.__setitem__

    return SimpleNamespace(
        __version__="1.30.0",
        InferenceSession=session,
        SessionOptions=SimpleNamespace,
        RunOptions=Options,
        OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=FakeValue),
    )


@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_cuda_binds_once_per_batch_and_cuts_what_is_larger(count: int) -> None:
    """Every frame its own answer, whatever came before. Not run on a real GPU."""
    engine = CudaEngine(Path("x"), "a", "fp16", library=fake_onnxruntime())
    for _ in range(2):
        batch = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(engine.embed(batch), batch.reshape(count, 4, -1).sum(axis=2))
    assert len(engine._bound) == len({min(8, count - start) for start in range(0, count, 8)})


def test_cuda_answers_in_any_order_of_batches() -> None:
    """A graph id belongs to one batch size."""
    engine = CudaEngine(Path("x"), "a", "fp16", library=fake_onnxruntime())
    for seed, count in enumerate((1, 8, 1, 3, 8, 1)):
        batch = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(engine.embed(batch), batch.reshape(count, 4, -1).sum(axis=2))
    assert engine.graphs


class Uncapturable(FakeSession):
    """A session whose first run with graphs fails, as CUDA failure 900 does."""

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self.graphs:
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing\nmore")
        super().run_with_iobinding(binding, options)


class Unpartitioned(FakeSession):
    """A library that refuses graphs, because a node would run on the processor."""

    def __init__(self, path: str, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        super().__init__(path, options, providers)
        if self.graphs:
            raise RuntimeError("not all nodes have been partitioned to the CUDA EP")


@pytest.mark.parametrize(
    ("session", "reason"), [(Uncapturable, "CUDA failure 900"), (Unpartitioned, "not all nodes have been partitioned")]
)
def test_cuda_without_graphs_still_answers(
    session: type[FakeSession], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A capture that fails costs speed, not the frame; the log says so once."""
    engine = CudaEngine(Path("x"), "a", "fp16", library=fake_onnxruntime(session))
    for count in (1, 3, 1):
        batch = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(engine.embed(batch), batch.reshape(count, 4, -1).sum(axis=2))
    assert not engine.graphs
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert "more" not in record.getMessage()


def test_cuda_that_fails_later_is_an_error() -> None:
    """A lost GPU is not mistaken for a capture that failed."""

    class Lost(FakeSession):
        runs = 0

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            self.runs += 1
            if self.runs > 1:
                raise RuntimeError("CUDA failure 719: unspecified launch failure")
            super().run_with_iobinding(binding, options)

    engine = CudaEngine(Path("x"), "a", "fp16", library=fake_onnxruntime(Lost))
    engine.embed(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(EngineError, match=r"failed on the GPU .*CUDA failure 719"):
        engine.embed(np.zeros((1, 32, 32, 3), np.uint8))


def _no_gpu() -> None:
    raise MissingError("no usable NVIDIA GPU")


@pytest.mark.parametrize(
    ("gpu", "reason"), [(lambda: None, "its CUDA or cuDNN libraries do not load"), (_no_gpu, "no usable NVIDIA GPU")]
)
def test_cuda_does_not_fly_on_the_processor_in_silence(monkeypatch: pytest.MonkeyPatch, gpu: Any, reason: str) -> None:
    """The library falls back without a word: that is an error here. Without a GPU nothing is to be installed anew."""

    class Fallen(FakeSession):
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort_cuda, "first_gpu", gpu)
    with pytest.raises(MissingError, match=f"got CPUExecutionProvider: {reason}"):
        CudaEngine(Path("x"), "a", "fp16", library=fake_onnxruntime(Fallen))


@pytest.mark.parametrize(
    ("device", "expected"), [(True, "use the TensorRT engine"), (False, "pip uninstall onnxruntime && pip install")]
)
def test_the_advice_fits_the_machine(monkeypatch: pytest.MonkeyPatch, device: bool, expected: str) -> None:
    """What is installed and what to do. On a JetPack nothing is to be uninstalled: PyPI has nothing for its CUDA."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(ort_cuda, "on_device", lambda: device)
    with pytest.raises(MissingError, match=rf"has no {PROVIDER} .*{expected}") as caught:
        CudaEngine(Path("x"), "a", "fp16")
    assert not device or "uninstall" not in str(caught.value)


def listed(version: str, **names: Any) -> Any:
    return SimpleNamespace(__version__=version, get_available_providers=lambda: [PROVIDER], **names)


def test_an_onnx_runtime_with_one_graph_for_all_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.18 the graph of one batch size would be replayed for another, silently."""
    monkeypatch.setattr(ort_cuda, "load_onnxruntime", lambda extra: listed("1.17.1"))
    with pytest.raises(MissingError, match=r"ONNX Runtime 1.17.1 keeps one CUDA graph .* expected 1.18 or later"):
        ort_cuda.load_library()


def test_cuda_libraries_from_wheels_are_loaded_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The library prints what it does not find: that would break ``build --json``. PyTorch's wheels count too."""
    loaded: list[str | None] = []

    def preload(directory: str | None = None) -> None:
        print("Failed to load libcudnn.so.9")
        loaded.append(directory)

    folders = [tmp_path / "nvidia" / part / "lib" for part in ("cu13", "cudnn")]
    for folder in folders:
        folder.mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(ort_cuda, "find_spec", lambda name: found)
    monkeypatch.setattr(ort_cuda, "load_onnxruntime", lambda extra: listed("1.31.1", preload_dlls=preload))
    ort_cuda.load_library()
    assert loaded == [None, *map(str, folders)]
    assert not capsys.readouterr().out
