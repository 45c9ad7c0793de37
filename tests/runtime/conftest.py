"""A GPU and a TensorRT that are not there: they do on the processor what the real ones are asked to do."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.engines.device_memory import HostBuffer
from overflight.runtime.errors import EngineError


def copy(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, source, size)


class FakeMemory:
    """Device memory in ordinary memory. What is queued runs when it is waited for, as on a device.

    Reading an answer too early, writing a buffer that is still being read, or launching a graph over freed memory
    shows as a wrong answer or an assertion.
    """

    graphs = True
    most_bytes = 1 << 30

    def __init__(self, *, integrated: bool = False, graphs: bool = True) -> None:
        self.name = "Fake GPU (sm_87)"
        self.graphs = graphs
        self.integrated = integrated
        self.calls: list[str] = []
        self.closed = False
        self.fails_to_capture = False
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._queue: list[Callable[[], None]] = []
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._capturing: list[Callable[[], None]] | None = None
        self._events: dict[int, int] = {}

    def _make(self, size: int) -> NDArray[np.uint8]:
        array = np.zeros(size, np.uint8)
        self._kept[array.ctypes.data] = array
        return array

    def host(self, size: int) -> HostBuffer:
        array = self._make(size)
        return HostBuffer(array, array.ctypes.data, array.ctypes.data if self.integrated else None)

    def device(self, size: int) -> int:
        if size > self.most_bytes:
            raise EngineError("cudaMalloc failed (cudaErrorMemoryAllocation)")
        return int(self._make(size).ctypes.data)

    def holds(self, address: int, size: int) -> bool:
        return len(self._kept.get(address, ())) >= size

    def stream(self) -> int:
        return 7

    def queue(self, work: Callable[[], None]) -> None:
        (self._queue if self._capturing is None else self._capturing).append(work)

    def to_device(self, target: int, source: HostBuffer, size: int, stream: int) -> None:
        self.calls.append("to_device")
        self.queue(lambda: copy(target, source.pointer, size))

    def to_host(self, target: HostBuffer, source: int, size: int, stream: int) -> None:
        self.calls.append("to_host")
        self.queue(lambda: copy(target.pointer, source, size))

    def event(self) -> int:
        self._events[len(self._events)] = 0
        return len(self._events) - 1

    def record(self, event: int, stream: int) -> None:
        assert self._capturing is None, "an event must not be recorded inside a graph"
        self._events[event] = len(self._queue)

    def wait(self, event: int) -> None:
        assert self._capturing is None, "a stream must not be waited for while it is captured"
        done = self._events[event]
        for work in self._queue[:done]:
            work()
        del self._queue[:done]
        self._events = {other: max(0, at - done) for other, at in self._events.items()}

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        if not self.graphs:
            raise EngineError("no graphs here")
        self.calls.append("capture")
        self._capturing = []
        try:
            if self.fails_to_capture:
                raise EngineError("cudaStreamEndCapture failed (cudaErrorStreamCaptureInvalidated)")
            work()
            self._graphs[len(self._graphs)] = self._capturing
        finally:
            self._capturing = None
        return len(self._graphs) - 1

    def launch(self, graph: int, stream: int) -> None:
        self.calls.append("launch")
        self._queue += self._graphs[graph]

    def close(self) -> None:
        self.closed = True


def fake_embed(frames: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    """Stand in for a tower: every frame has its own answer."""
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    return np.stack([flat[:, i :: width + 1].sum(axis=1) for i in range(width)], axis=1)


def is_int(value: object) -> bool:
    """Whether the real bindings take this as typing.SupportsInt without a surprise."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass
class FakeContext:
    """An execution context over fake memory: reads and writes raw addresses when its turn in the queue comes.

    Its kernels use the scratch memory, and a graph captured from it belongs to the state in which it was captured.
    """

    memory: FakeMemory
    side: int
    width: int
    profiles: list[tuple[int, int]]
    scratch_bytes: int
    refuse: bool = False
    shape: tuple[int, ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)
    profile: int = -1
    scratch: int = 0
    state: int = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert is_int(memory)
        assert size >= self.scratch_bytes
        assert self.memory.holds(memory, size)
        self.scratch, self.state = memory, self.state + 1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert is_int(profile_index)
        assert stream_handle == 7
        self.profile, self.state = profile_index, self.state + 1
        return 0 <= profile_index < len(self.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.memory._capturing is None
        assert all(map(is_int, shape))
        self.shape, self.state = shape, self.state + 1
        least, most = self.profiles[self.profile]
        return least <= shape[0] <= most

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert is_int(memory)
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == 7, "the default stream cannot be captured"
        assert self.scratch, "a context without device memory crashes"
        assert self.profile >= 0, "only the first context has a profile by itself"
        shape, addresses, state = self.shape, dict(self.addresses), self.state
        frames_size, answers_size = int(np.prod(shape)), shape[0] * self.width * 4

        def work() -> None:
            assert state == self.state, "a graph of a context that was changed since answers anything"
            raw = ctypes.string_at(addresses["frames"], frames_size)
            ctypes.memmove(self.scratch, b"used", 4)
            answers = fake_embed(np.frombuffer(raw, np.uint8).reshape(shape), self.width)
            ctypes.memmove(addresses["embeddings"], answers.tobytes(), answers_size)

        self.memory.queue(work)
        return not self.refuse


class FakeLogger:
    """The base of a logger: its subclass receives what the library logs."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, msg: str) -> None:
        raise AssertionError("a pure virtual function was called")


def fake_tensorrt(
    memory: FakeMemory,
    *,
    side: int = 8,
    width: int = 5,
    max_batch: int = 4,
    profiles: list[tuple[int, int]] | None = None,
    scratch: int = 1024,
    **faults: bool,
) -> Any:
    """Return a module that answers as TensorRT does, for a plan of any content."""
    names = {"frames": "in", "embeddings": "out"} if not faults.get("foreign") else {"x": "in", "y": "out"}
    ranges = profiles or [(1, max_batch)]
    library = SimpleNamespace(
        __version__="10.3.0",
        ILogger=FakeLogger,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=2),
        contexts=[],
    )

    def create_execution_context(strategy: int) -> FakeContext | None:
        assert strategy == 2
        if faults.get("full"):
            return None
        context = FakeContext(memory, side, width, ranges, scratch, refuse=faults.get("refuse", False))
        library.contexts.append(context)
        return context

    engine = SimpleNamespace(
        num_io_tensors=2,
        num_optimization_profiles=len(ranges),
        device_memory_size_v2=scratch,
        get_tensor_name=list(names).__getitem__,
        get_tensor_mode=names.__getitem__,
        get_tensor_profile_shape=lambda name, at: tuple((size, side, side, 3) for size in (ranges[at][0], *ranges[at])),
        get_tensor_shape=lambda name: (-1, width),
        create_execution_context=create_execution_context,
    )

    def runtime(logger: Any) -> Any:
        def deserialize(plan: bytes) -> Any:
            if faults.get("torn"):
                logger.log(FakeLogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed.")
            return None if faults.get("torn") else engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    library.Runtime = runtime
    return library


@pytest.fixture
def fake_gpu() -> type[FakeMemory]:
    return FakeMemory


@pytest.fixture
def tensorrt_over() -> Callable[..., Any]:
    return fake_tensorrt


@pytest.fixture
def embed_as_fake() -> Callable[..., NDArray[np.float32]]:
    return fake_embed


@pytest.fixture
def tensorrt_fakes() -> dict[str, type]:
    return {"IExecutionContext": FakeContext, "ILogger": FakeLogger}
