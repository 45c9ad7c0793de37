"""The TensorRT runner on a fake GPU: buffers, profiles and graphs. Not run on a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.engines.tensorrt import TensorRtEngine
from overflight.runtime.errors import EngineError, MissingError


def frames(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(b"plan")
    return path


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 13])
def test_every_frame_gets_its_own_answer_at_any_batch(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, embed_as_fake: Any, count: int, graphs: bool, integrated: bool
) -> None:
    """Cut, queued, replayed and collected: the same as one by one, the second time as well as the first."""
    memory = fake_gpu(integrated=integrated, graphs=graphs)
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory))
    for seed in range(3):
        batch = frames(count, seed)
        np.testing.assert_array_equal(engine.embed(batch), embed_as_fake(batch, 5))


def test_a_graph_is_captured_once_per_batch_size_and_slot(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """Later calls only launch."""
    memory = fake_gpu()
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory))
    for _ in range(5):
        engine.embed(frames(1))
    assert memory.calls.count("capture") == 1
    assert memory.calls.count("launch") == 4
    engine.embed(frames(8))
    engine.embed(frames(8))
    assert memory.calls.count("capture") == 3


def test_an_integrated_gpu_copies_nothing(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """On a Jetson the plan is bound to the mapped memory itself."""
    memory = fake_gpu(integrated=True)
    engine = TensorRtEngine(plan, "a" * 64, "int8", memory=memory, library=tensorrt_over(memory))
    engine.embed(frames(4))
    assert not {"to_device", "to_host"} & set(memory.calls)


def test_the_engine_says_what_it_is(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """Provider is the GPU's name, version the library's."""
    memory = fake_gpu()
    engine = TensorRtEngine(plan, "a" * 64, "int8", memory=memory, library=tensorrt_over(memory))
    assert (engine.side, engine.width, engine.max_batch) == (8, 5, 4)
    assert engine.info.provider == "Fake GPU (sm_87)"
    assert engine.info.version == "10.3.0"
    engine.close()
    engine.close()
    assert memory.closed


@pytest.mark.parametrize(
    ("fault", "message"),
    [("torn", "cannot load"), ("foreign", "not an image tower"), ("full", "no memory")],
)
def test_a_plan_that_cannot_run_is_refused_and_frees_the_gpu(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, fault: str, message: str
) -> None:
    """With one line, and no buffer left behind."""
    memory = fake_gpu()
    with pytest.raises(EngineError, match=message):
        TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, **{fault: True}))
    assert memory.closed


def test_a_refused_batch_and_wrong_frames_are_reported(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """TensorRT returns false, a caller gives floats: both are errors, not answers."""
    memory = fake_gpu()
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, refuse=True))
    with pytest.raises(EngineError, match="refused"):
        engine.embed(frames(1))
    with pytest.raises(EngineError, match="expected uint8"):
        engine.embed(np.zeros((1, 9, 9, 3), np.uint8))


def test_without_a_gpu_nothing_of_tensorrt_is_touched(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lean runtime crashes the process there, so the driver is asked first."""
    from overflight.runtime.engines import cuda_memory
    from overflight.runtime.engines.device_memory import no_gpu

    def refuse(_: object = None) -> Callable[[], None]:
        raise no_gpu("the driver sees none")

    monkeypatch.setattr(cuda_memory, "CudaMemory", refuse)
    with pytest.raises(MissingError, match="no usable NVIDIA GPU"):
        TensorRtEngine(plan, "a" * 64, "fp16", library=object())
