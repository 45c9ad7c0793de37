"""The TensorRT engine: one code path from 10.3 (JetPack 6) to 11.4, replayed as a CUDA graph."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.engine import EngineInfo
from overflight.runtime.engines.gpu import open_memory
from overflight.runtime.engines.tensorrt_messages import collector
from overflight.runtime.errors import EngineError, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engines.device_memory import DeviceMemory, HostBuffer
    from overflight.runtime.engines.engine import Precision

_SLOTS = 2  # while the GPU works on one chunk of a long batch, the next is copied
_LEAST_SCRATCH = 256  # bytes; also the alignment that TensorRT asks for and every allocation has

log = logging.getLogger("overflight")


def load_library() -> Any:
    """Import TensorRT. Raises MissingError when it is not installed."""
    try:
        import tensorrt
    except ImportError as error:
        raise missing_extra("TensorRT", "tensorrt") from error
    return tensorrt


@dataclass(slots=True)
class _Replay:
    """One batch size in one slot: the execution context that is bound to it, and the graph captured from that."""

    context: Any
    graph: int | None = None


@dataclass(slots=True)
class _Slot:
    """Where one chunk lies: page-locked host memory, and the addresses that the engine reads and writes."""

    frames: HostBuffer
    answers: HostBuffer
    frames_address: int
    answers_address: int
    done: int
    replays: dict[int, _Replay] = field(default_factory=dict)


class TensorRtEngine:
    """An image tower in a TensorRT plan.

    Frames go through page-locked double buffers; on a board whose GPU shares the processor's memory the plan is bound
    to that memory itself and nothing is copied. The first call of a batch size captures a CUDA graph, later ones
    replay it. A graph belongs to the shapes and the state of its execution context, so every graph has a context of
    its own; all of them share one block of device memory, because they run one after the other on one stream. Where a
    capture fails, ``graphs`` turns False and calls are queued layer by layer. ``memory`` and ``library`` are passed by
    tests and measurements.
    """

    def __init__(
        self,
        plan: Path,
        sha256: str,
        precision: Precision,
        *,
        memory: DeviceMemory | None = None,
        library: Any = None,
        graphs: bool = True,
    ) -> None:
        trt = library or load_library()
        self._memory: DeviceMemory = memory or open_memory()  # first: without a GPU the lean runtime crashes
        self.graphs = graphs and self._memory.graphs
        try:
            self._open(trt, plan)
        except BaseException:
            self._memory.close()
            raise
        self.info = EngineInfo("tensorrt", precision, self._memory.name, trt.__version__, sha256)

    def _open(self, trt: Any, plan: Path) -> None:
        self._messages = collector(trt)
        runtime = trt.Runtime(self._messages)
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineError(
                f"{plan}: TensorRT {trt.__version__} cannot load it on {self._memory.name} "
                f"({self._messages.explain()}); run overflight build again"
            )
        modes = {
            name: engine.get_tensor_mode(name)
            for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
        }
        if modes != {"frames": trt.TensorIOMode.INPUT, "embeddings": trt.TensorIOMode.OUTPUT}:
            raise EngineError(f"{plan}: not an image tower (frames -> embeddings); run overflight build again")
        self._runtime, self._engine = runtime, engine
        self._user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        shapes = [engine.get_tensor_profile_shape("frames", at) for at in range(engine.num_optimization_profiles)]
        self._profiles = [(int(smallest[0]), int(largest[0])) for smallest, _, largest in shapes]
        largest = max((tuple(largest) for _, _, largest in shapes), key=lambda shape: int(shape[0]))
        self.max_batch = int(largest[0])
        self.side = int(largest[1])
        self.width = int(engine.get_tensor_shape("embeddings")[1])
        self._frame_bytes = math.prod(int(edge) for edge in largest[1:])
        self._stream = self._memory.stream()
        self._scratch_bytes = max(int(engine.device_memory_size_v2), _LEAST_SCRATCH)
        self._scratch = self._allocate_scratch(plan)
        self._slots = [self._slot() for _ in range(_SLOTS)]
        self._answers = np.empty((self.max_batch, self.width), np.float32)

    def _allocate_scratch(self, plan: Path) -> int:
        try:
            return self._memory.device(self._scratch_bytes)
        except EngineError as error:
            raise EngineError(
                f"{plan}: no memory for its activations on {self._memory.name} ({self._scratch_bytes >> 20} MB); stop "
                "other programs first"
            ) from error

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
        replay = slot.replays.get(count)
        if replay is None:
            self._begin(slot, count)
        elif replay.graph is not None:
            self._memory.launch(replay.graph, self._stream)
        else:
            self._enqueue(replay.context, slot, count)
        self._memory.record(slot.done, self._stream)

    def _begin(self, slot: _Slot, count: int) -> None:
        """Run a batch size for the first time in a slot and capture it.

        The first run settles what TensorRT allocates lazily, which cannot be captured; its answer is the answer. A
        context whose capture failed is dropped with the state that the failure left in it.
        """
        replay = _Replay(self._bind(slot, count))
        self._enqueue(replay.context, slot, count)
        if not self.graphs:
            slot.replays[count] = replay
            return
        self._memory.record(slot.done, self._stream)
        self._memory.wait(slot.done)
        try:
            replay.graph = self._memory.capture(self._stream, lambda: self._enqueue(replay.context, slot, count))
        except EngineError as error:
            self.graphs = False
            log.warning("%s: a CUDA graph cannot be captured (%s); calls are queued layer by layer", self.title, error)
            return
        slot.replays[count] = replay

    @property
    def title(self) -> str:
        """The engine's name in messages."""
        return f"tensorrt {self.info.precision}"

    def _bind(self, slot: _Slot, count: int) -> Any:
        """Make an execution context for one batch size in one slot, in the shared device memory."""
        context = self._engine.create_execution_context(self._user_managed)
        profile = next((at for at, (least, most) in enumerate(self._profiles) if least <= count <= most), None)
        if context is None or profile is None:
            raise self._refused(count)
        context.set_device_memory(self._scratch, self._scratch_bytes)
        bound = (
            context.set_optimization_profile_async(profile, self._stream),  # only the first context begins with one
            context.set_input_shape("frames", (count, self.side, self.side, 3)),
            context.set_tensor_address("frames", slot.frames_address),
            context.set_tensor_address("embeddings", slot.answers_address),
        )
        if not all(bound):
            raise self._refused(count)
        return context

    def _refused(self, count: int) -> EngineError:
        return EngineError(
            f"TensorRT refused a batch of {count} on {self._memory.name} ({self._messages.explain()}); run overflight "
            "build again"
        )

    def _enqueue(self, context: Any, slot: _Slot, count: int) -> None:
        if slot.frames.mapped is None:
            self._memory.to_device(slot.frames_address, slot.frames, count * self._frame_bytes, self._stream)
        if not context.execute_async_v3(self._stream):
            raise self._refused(count)
        if slot.answers.mapped is None:
            self._memory.to_host(slot.answers, slot.answers_address, count * self.width * 4, self._stream)

    def _collect(self, slot: _Slot, start: int, count: int) -> None:
        self._memory.wait(slot.done)
        found = slot.answers.bytes[: count * self.width * 4].view(np.float32).reshape(count, self.width)
        self._answers[start : start + count] = found

    def close(self) -> None:
        """Free the plan and its buffers: contexts before the memory that they use, and not while they work.

        A call that was interrupted leaves a chunk on the GPU; TensorRT forbids to free a context that executes.
        """
        if self._engine is not None:
            for slot in self._slots:
                with suppress(EngineError):  # a GPU that is lost: nothing executes on it
                    self._memory.wait(slot.done)
            for slot in self._slots:
                slot.replays.clear()
            self._engine = self._runtime = None
            self._memory.close()
