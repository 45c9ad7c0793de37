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

    def __init__(self, *, integrated: bool = False, graphs: bool = True) -> None:
        self.name = "Fake GPU (sm_87)"
        self.graphs = graphs
        self.integrated = integrated
        self.calls: list[str] = []
        self.closed = False
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
        return int(self._make(size).ctypes.data)

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
        work()
        self._graphs[len(self._graphs)], self._capturing = self._capturing, None
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


@dataclass
class FakeContext:
    """An execution context over fake memory: reads and writes raw addresses when its turn in the queue comes."""

    memory: FakeMemory
    side: int
    width: int
    shape: tuple[int, ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)
    refuse: bool = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.memory._capturing is None
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7, "the default stream cannot be captured"
        shape, addresses = self.shape, dict(self.addresses)
        frames_size, answers_size = int(np.prod(shape)), shape[0] * self.width * 4

        def work() -> None:
            raw = ctypes.string_at(addresses["frames"], frames_size)
            answers = fake_embed(np.frombuffer(raw, np.uint8).reshape(shape), self.width)
            ctypes.memmove(addresses["embeddings"], answers.tobytes(), answers_size)

        self.memory.queue(work)
        return not self.refuse


def fake_tensorrt(memory: FakeMemory, *, side: int = 8, width: int = 5, max_batch: int = 4, **faults: bool) -> Any:
    """Return a module that answers as TensorRT does, for a plan of any content."""
    names = {"frames": "in", "embeddings": "out"} if not faults.get("foreign") else {"x": "in", "y": "out"}
    context = FakeContext(memory, side, width, refuse=faults.get("refuse", False))
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=list(names).__getitem__,
        get_tensor_mode=names.__getitem__,
        get_tensor_profile_shape=lambda name, profile: ((1, side, side, 3),) * 2 + ((max_batch, side, side, 3),),
        get_tensor_shape=lambda name: (-1, width),
        create_execution_context=lambda: None if faults.get("full") else context,
    )

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None:
            self.level = level

    return SimpleNamespace(
        __version__="10.3.0",
        Logger=Logger,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: None if faults.get("torn") else engine
        ),
    )


@pytest.fixture
def fake_gpu() -> type[FakeMemory]:
    return FakeMemory


@pytest.fixture
def tensorrt_over() -> Callable[..., Any]:
    return fake_tensorrt


@pytest.fixture
def embed_as_fake() -> Callable[..., NDArray[np.float32]]:
    return fake_embed
