"""The TensorRT engine: one code path from 10.3 (JetPack 6) to 11.4, replayed as a CUDA graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.engine import EngineInfo
from overflight.runtime.engines.gpu import open_memory
from overflight.runtime.errors import EngineError, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engines.device_memory import DeviceMemory, HostBuffer
    from overflight.runtime.engines.engine import Precision

_SLOTS = 2  # while the GPU works on one chunk of a long batch, the next is copied at the same time


def load_library() -> Any:
    """Import TensorRT. Raises MissingError when it is not installed."""
    try:
        import tensorrt
    except ImportError as error:
        raise missing_extra("TensorRT", "tensorrt") from error
    return tensorrt


@dataclass(slots=True)
class _Slot:
    """Where one chunk lies: page-locked host memory, and what the engine is given to read and write."""

    frames: HostBuffer
    answers: HostBuffer
    frames_address: int
    answers_address: int
    done: int
    graphs: dict[int, int] = field(default_factory=dict)


class TensorRtEngine:
    """An image tower in a TensorRT plan.

    Frames go through page-locked double buffers; on a board whose GPU shares the processor's memory the plan is bound
    to that memory itself and nothing is copied. The first call of a batch size captures a CUDA graph, later ones
    replay it. ``memory`` and ``library`` are handed in by tests.
    """

    def __init__(
        self,
        plan: Path,
        sha256: str,
        precision: Precision,
        *,
        memory: DeviceMemory | None = None,
        library: Any = None,
    ) -> None:
        trt = library or load_library()
        self._memory: DeviceMemory = memory or open_memory()  # first: without a GPU the lean runtime crashes
        try:
            self._open(trt, plan)
        except BaseException:
            self._memory.close()
            raise
        self.info = EngineInfo("tensorrt", precision, self._memory.name, trt.__version__, sha256)

    def _open(self, trt: Any, plan: Path) -> None:
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineError(
                f"{plan}: TensorRT {trt.__version__} cannot load it on {self._memory.name}; run overflight build again"
            )
        modes = {
            name: engine.get_tensor_mode(name)
            for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
        }
        if modes != {"frames": trt.TensorIOMode.INPUT, "embeddings": trt.TensorIOMode.OUTPUT}:
            raise EngineError(f"{plan}: not an image tower (frames -> embeddings); run overflight build again")
        self._runtime, self._engine = runtime, engine
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{plan}: no memory for its activations on {self._memory.name}; stop other programs first"
            )
        _, _, largest = engine.get_tensor_profile_shape("frames", 0)
        self.max_batch = int(largest[0])
        self.side = int(largest[1])
        self.width = int(engine.get_tensor_shape("embeddings")[1])
        self._frame_bytes = math.prod(int(edge) for edge in tuple(largest)[1:])
        self._stream = self._memory.stream()
        self._slots = [self._slot() for _ in range(_SLOTS)]
        self._answers = np.empty((self.max_batch, self.width), np.float32)

    def _slot(self) -> _Slot:
        memory = self._memory
        frames = memory.host(self.max_batch * self._frame_bytes)
        answers = memory.host(self.max_batch * self.width * 4)
        return _Slot(
            frames,
            answers,
            memory.device(frames.bytes.size) if frames.mapped is None else frames.mapped,
            memory.device(answers.bytes.size) if answers.mapped is None else answers.mapped,
            memory.event(),
        )

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 RGB ``[N, S, S, 3]`` into unit float32 ``[N, D]``."""
        if frames.shape[1:] != (self.side, self.side, 3) or frames.dtype != np.uint8:
            raise EngineError(
                f"frames {frames.dtype} {list(frames.shape)}; expected uint8 [N, {self.side}, {self.side}, 3]"
            )
        if len(frames) > len(self._answers):
            self._answers = np.empty((len(frames), self.width), np.float32)
        flying: list[tuple[_Slot, int, int]] = []
        for turn, start in enumerate(range(0, len(frames), self.max_batch)):
            if len(flying) == _SLOTS:
                self._collect(*flying.pop(0))
            chunk = frames[start : start + self.max_batch]
            slot = self._slots[turn % _SLOTS]
            slot.frames.bytes[: chunk.size] = chunk.reshape(-1)
            self._queue(slot, len(chunk))
            flying.append((slot, start, len(chunk)))
        for one in flying:
            self._collect(*one)
        return self._answers[: len(frames)]

    def _queue(self, slot: _Slot, count: int) -> None:
        memory = self._memory
        graph = slot.graphs.get(count)
        if graph is not None:
            memory.launch(graph, self._stream)
        else:
            context = self._context
            context.set_input_shape("frames", (count, self.side, self.side, 3))
            context.set_tensor_address("frames", slot.frames_address)
            context.set_tensor_address("embeddings", slot.answers_address)
            # The first run settles what TensorRT allocates lazily, which cannot be captured; its answer is the answer.
            self._enqueue(slot, count)
            if memory.graphs:
                memory.record(slot.done, self._stream)
                memory.wait(slot.done)
                slot.graphs[count] = memory.capture(self._stream, lambda: self._enqueue(slot, count))
        memory.record(slot.done, self._stream)

    def _enqueue(self, slot: _Slot, count: int) -> None:
        if slot.frames.mapped is None:
            self._memory.to_device(slot.frames_address, slot.frames, count * self._frame_bytes, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f"TensorRT refused a batch of {count} on {self._memory.name}; run overflight build again")
        if slot.answers.mapped is None:
            self._memory.to_host(slot.answers, slot.answers_address, count * self.width * 4, self._stream)

    def _collect(self, slot: _Slot, start: int, count: int) -> None:
        self._memory.wait(slot.done)
        found = slot.answers.bytes[: count * self.width * 4].view(np.float32).reshape(count, self.width)
        self._answers[start : start + count] = found

    def close(self) -> None:
        """Free the plan and its buffers."""
        if self._context is not None:
            self._context = self._engine = self._runtime = None
            self._memory.close()
