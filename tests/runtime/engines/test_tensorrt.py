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
    [("torn", r"cannot load it on Fake GPU .*magicTagRead"), ("foreign", "not an image tower")],
)
def test_a_plan_that_cannot_run_is_refused_and_frees_the_gpu(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, fault: str, message: str
) -> None:
    """In one line with the library's own reason, and no buffer left."""
    memory = fake_gpu()
    with pytest.raises(EngineError, match=message):
        TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, **{fault: True}))
    assert memory.closed


def test_a_gpu_without_memory_for_the_activations_says_so(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """The shared block is allocated when the plan is loaded, not in the first frame."""
    memory = fake_gpu()
    memory.most_bytes = 1 << 20
    with pytest.raises(EngineError, match=r"no memory for its activations on Fake GPU .*\(2 MB\)"):
        TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, scratch=2 << 20))
    assert memory.closed


def test_every_graph_has_a_context_of_its_own_in_one_block_of_memory(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, embed_as_fake: Any
) -> None:
    """In any order of batches: a context that is shaped anew would spoil the graphs captured from it."""
    memory = fake_gpu()
    library = tensorrt_over(memory, max_batch=8)
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=library)
    for seed, count in enumerate((1, 8, 1, 3, 8, 1, 20, 3)):
        np.testing.assert_array_equal(engine.embed(frames(count, seed)), embed_as_fake(frames(count, seed), 5))
    slots = [set(slot.replays) for slot in engine._slots]
    assert slots == [{1, 3, 4, 8}, {8}]
    assert memory.calls.count("capture") == len(library.contexts) == 5
    assert len({context.scratch for context in library.contexts}) == 1


def test_tiles_use_the_profile_that_was_built_for_them(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, embed_as_fake: Any
) -> None:
    """``build --profile 1,8``: one frame in the first, more in the second."""
    memory = fake_gpu()
    library = tensorrt_over(memory, profiles=[(1, 1), (2, 8)])
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=library)
    assert engine.max_batch == 8
    for count in (1, 8, 5, 9):
        np.testing.assert_array_equal(engine.embed(frames(count)), embed_as_fake(frames(count), 5))
    assert [context.profile for context in library.contexts] == [0, 1, 1, 0]


@pytest.mark.parametrize("integrated", [False, True])
def test_a_failed_capture_keeps_the_answer_and_turns_graphs_off(
    plan: Path,
    fake_gpu: Any,
    tensorrt_over: Any,
    embed_as_fake: Any,
    integrated: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The frame is answered, the next ones are queued layer by layer from a fresh context, and the log says so once."""
    memory = fake_gpu(integrated=integrated)
    memory.fails_to_capture = True
    library = tensorrt_over(memory)
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=library)
    for seed, count in enumerate((1, 1, 4, 1, 9)):
        np.testing.assert_array_equal(engine.embed(frames(count, seed)), embed_as_fake(frames(count, seed), 5))
    assert not engine.graphs
    assert memory.calls.count("capture") == 1
    assert "launch" not in memory.calls
    assert [record.getMessage() for record in caplog.records] == [
        "tensorrt fp16: a CUDA graph cannot be captured (cudaStreamEndCapture failed "
        "(cudaErrorStreamCaptureInvalidated)); calls are queued layer by layer"
    ]


def test_an_interrupted_call_is_waited_for_before_its_context_is_freed(
    plan: Path, fake_gpu: Any, tensorrt_over: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between a launch and its answer: TensorRT forbids to free a context that executes."""
    memory = fake_gpu()
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory))
    engine.embed(frames(1))
    with monkeypatch.context() as patch:
        patch.setattr(memory, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            engine.embed(frames(1))
    assert memory._queue
    left = []
    slot = engine._slots[0]
    monkeypatch.setattr(slot, "replays", Clearing(lambda: left.append(len(memory._queue))))
    engine.close()
    assert left == [0]


class Clearing(dict[int, Any]):
    """The graphs of a slot; says when they are freed."""

    def __init__(self, said: Callable[[], None]) -> None:
        super().__init__()
        self._said = said

    def clear(self) -> None:
        self._said()


def test_a_batch_that_is_refused_and_wrong_frames_are_errors(plan: Path, fake_gpu: Any, tensorrt_over: Any) -> None:
    """TensorRT returns false, a caller gives floats: both are errors, not answers."""
    memory = fake_gpu()
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, refuse=True))
    with pytest.raises(EngineError, match="refused"):
        engine.embed(frames(1))
    with pytest.raises(EngineError, match="expected uint8"):
        engine.embed(np.zeros((1, 9, 9, 3), np.uint8))
    engine = TensorRtEngine(plan, "a" * 64, "fp16", memory=memory, library=tensorrt_over(memory, full=True))
    with pytest.raises(EngineError, match=r"refused a batch of 1 .*it gave no reason"):
        engine.embed(frames(1))


def test_without_a_gpu_nothing_of_tensorrt_is_touched(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lean runtime crashes the process there, so the driver is asked first."""
    from overflight.runtime.engines import cuda_memory
    from overflight.runtime.engines.device_memory import no_gpu

    def refuse(**_: object) -> Callable[[], None]:
        raise no_gpu("the driver sees none")

    monkeypatch.setattr(cuda_memory, "CudaMemory", refuse)
    with pytest.raises(MissingError, match="no usable NVIDIA GPU"):
        TensorRtEngine(plan, "a" * 64, "fp16", library=object())
