"""Both device-memory backends against fake libraries that check how they are called. Not run on a real GPU.

Covers: runtime/engines/cuda_memory.py, runtime/engines/pycuda_memory.py.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.runtime.engines.cuda_memory import CudaMemory
from overflight.runtime.engines.pycuda_memory import PycudaMemory
from overflight.runtime.errors import EngineError, MissingError

CONSTANTS: dict[str, Any] = {
    "cudaError_t": SimpleNamespace(cudaSuccess=0),
    "cudaDeviceAttr": SimpleNamespace(
        cudaDevAttrIntegrated=1, cudaDevAttrComputeCapabilityMajor=2, cudaDevAttrComputeCapabilityMinor=3
    ),
    "cudaMemcpyKind": SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2),
    "cudaStreamCaptureMode": SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
    "cudaHostAllocMapped": 2,
    "cudaHostAllocDefault": 0,
    "cudaStreamNonBlocking": 1,
    "cudaEventDisableTiming": 2,
    "cudaEventBlockingSync": 1,
}


class FakeCudart:
    """The CUDA runtime API in ordinary memory: every call returns a tuple that begins with an error code."""

    def __init__(self, *, devices: int = 1, integrated: int = 0, broken: str = "") -> None:
        self.devices, self.integrated, self.broken = devices, integrated, broken
        self.live: dict[int, Any] = {}
        self.log: list[str] = []
        vars(self).update(CONSTANTS)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:  # noqa: PLR0911 - one per call of the API
            self.log.append(name)
            if name == self.broken:
                return (2, None)
            match name:
                case "cudaGetDeviceCount":
                    return (0, self.devices)
                case "cudaDeviceGetAttribute":
                    return (0, {1: self.integrated, 2: 8, 3: 7}[arguments[0]])
                case "cudaGetDeviceProperties":
                    return (0, SimpleNamespace(name=b"Orin\0\0"))
                case "cudaMalloc" | "cudaHostAlloc":
                    memory = (ctypes.c_uint8 * arguments[0])()
                    self.live[ctypes.addressof(memory)] = memory
                    return (0, ctypes.addressof(memory))
                case "cudaFree" | "cudaFreeHost" | "cudaStreamDestroy" | "cudaEventDestroy" | "cudaGraphExecDestroy":
                    del self.live[arguments[0]]
                    return (0,)
                case "cudaHostGetDevicePointer":
                    return (0, arguments[0])
                case "cudaMemcpyAsync":
                    ctypes.memmove(arguments[0], arguments[1], arguments[2])
                    return (0,)
                case "cudaStreamCreateWithFlags" | "cudaEventCreateWithFlags" | "cudaGraphInstantiate":
                    handle = 1000 + len(self.log)
                    self.live[handle] = name
                    return (0, handle)
                case "cudaStreamEndCapture":
                    return (0, 99)
                case _:
                    return (0,)

        return call


def test_bytes_go_to_the_device_and_back() -> None:
    """Host to device to host, through page-locked memory."""
    memory = CudaMemory(FakeCudart())
    assert memory.name == "Orin (sm_87)"
    source, target, stream = memory.host(16), memory.host(16), memory.stream()
    source.bytes[:] = np.arange(16)
    there = memory.device(16)
    memory.to_device(there, source, 16, stream)
    memory.to_host(target, there, 16, stream)
    np.testing.assert_array_equal(target.bytes, np.arange(16))
    assert source.mapped is None


def test_an_integrated_gpu_gets_mapped_memory() -> None:
    """Where the GPU shares the processor's memory, its address comes with the buffer."""
    buffer = CudaMemory(FakeCudart(integrated=1)).host(8)
    assert buffer.mapped == buffer.pointer


def test_everything_made_is_freed_once() -> None:
    """Streams, events, graphs and buffers, last made first; closing again does nothing."""
    cuda = FakeCudart()
    memory = CudaMemory(cuda)
    memory.host(4), memory.device(4), memory.event()
    stream = memory.stream()
    memory.launch(memory.capture(stream, lambda: None), stream)
    assert len(cuda.live) == 5
    memory.close()
    assert not cuda.live
    memory.close()
    assert cuda.log.count("cudaDeviceSynchronize") == 1


def test_a_failed_capture_still_ends_the_capture() -> None:
    """A stream left capturing would refuse everything after."""
    cuda = FakeCudart()
    memory = CudaMemory(cuda)

    def fail() -> None:
        raise EngineError("refused")

    with pytest.raises(EngineError, match="refused"):
        memory.capture(memory.stream(), fail)
    assert "cudaStreamEndCapture" in cuda.log


@pytest.mark.parametrize("cuda", [FakeCudart(devices=0), FakeCudart(broken="cudaGetDeviceCount")])
def test_no_gpu_is_missing(cuda: FakeCudart) -> None:
    """Exit code 3, with what to check."""
    with pytest.raises(MissingError, match="nvidia-smi"):
        CudaMemory(cuda)


def test_a_full_gpu_is_reported() -> None:
    """The call that failed and its code are in the message."""
    memory = CudaMemory(FakeCudart(broken="cudaMalloc"))
    with pytest.raises(EngineError, match="cudaMalloc failed"):
        memory.device(8)


def test_the_real_cuda_python_names_exist() -> None:
    """Every name that the backend calls is in the installed cuda-python; on a machine without a GPU it says so."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    import re
    from pathlib import Path

    from cuda.bindings import runtime

    from overflight.runtime.engines import cuda_memory

    text = Path(cuda_memory.__file__).read_text()
    names = set(re.findall(r'_call\("(\w+)"', text)) | set(re.findall(r"_cuda\.(\w+)", text))
    assert len(names) > 20
    missing = {name for name in names if not hasattr(runtime, name)}
    assert not missing
    if runtime.cudaGetDeviceCount()[1]:
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingError, match="no usable NVIDIA GPU"):
        CudaMemory()


def fake_pycuda(integrated: int = 0) -> Any:
    context = SimpleNamespace(log=[])
    for name in ("push", "pop", "detach", "synchronize"):
        setattr(context, name, lambda name=name: context.log.append(name))

    class Allocation(int):
        pass

    class Held(np.ndarray):
        """A page-locked array, whose base knows its address on the device."""

        base = SimpleNamespace(get_device_pointer=lambda: 4242)  # type: ignore[assignment]  # its allocation

    kept: dict[int, Any] = {}

    def mem_alloc(size: int) -> Allocation:
        memory = (ctypes.c_uint8 * size)()
        kept[ctypes.addressof(memory)] = memory
        return Allocation(ctypes.addressof(memory))

    device = SimpleNamespace(
        get_attribute=lambda _: integrated,
        compute_capability=lambda: (7, 2),
        name=lambda: "Xavier",
        retain_primary_context=lambda: context,
    )
    device_class: Any = lambda _: device  # noqa: E731 - a class whose count is a static method
    device_class.count = lambda: 1
    return SimpleNamespace(
        init=lambda: None,
        Device=device_class,
        device_attribute=SimpleNamespace(INTEGRATED=18),
        host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
        event_flags=SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1),
        pagelocked_empty=lambda size, dtype, mem_flags: np.zeros(size, dtype).view(Held),
        mem_alloc=mem_alloc,
        Stream=lambda: SimpleNamespace(handle=5),
        Event=lambda flags: SimpleNamespace(record=lambda stream: None, synchronize=lambda: None),
        memcpy_htod_async=lambda target, source, stream: ctypes.memmove(int(target), source.ctypes.data, source.size),
        memcpy_dtoh_async=lambda target, source, stream: ctypes.memmove(target.ctypes.data, int(source), target.size),
        context=context,
    )


def test_pycuda_uses_the_primary_context_and_gives_it_back() -> None:
    """The one that TensorRT and everything else live in."""
    library = fake_pycuda()
    memory = PycudaMemory(library)
    assert memory.name == "Xavier (sm_72)"
    source, target, stream = memory.host(8), memory.host(8), memory.stream()
    source.bytes[:] = 9
    there = memory.device(8)
    memory.to_device(there, source, 8, stream)
    memory.to_host(target, there, 8, stream)
    assert target.bytes.tolist() == [9] * 8
    event = memory.event()
    memory.record(event, stream)
    memory.wait(event)
    memory.close()
    memory.close()
    assert library.context.log == ["push", "synchronize", "pop", "detach"]


def test_pycuda_maps_memory_on_an_integrated_gpu_and_refuses_graphs() -> None:
    """What it cannot do it says, and the runner asks before."""
    memory = PycudaMemory(fake_pycuda(integrated=1))
    assert memory.host(8).mapped == 4242
    assert not memory.graphs
    with pytest.raises(EngineError, match="cuda-python"):
        memory.capture(0, lambda: None)
