"""Both device-memory backends against fake libraries that check how they are called. Not run on a real GPU.

Covers: runtime/engines/cuda_memory.py, runtime/engines/driver.py, runtime/engines/gpu.py,
runtime/engines/pycuda_memory.py.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from overflight.runtime.engines.cuda_memory import CudaMemory
from overflight.runtime.engines.driver import first_gpu
from overflight.runtime.engines.pycuda_memory import PycudaMemory
from overflight.runtime.errors import EngineError, MissingError

CONSTANTS: dict[str, Any] = {
    "cudaError_t": SimpleNamespace(cudaSuccess=0),
    "cudaDeviceAttr": SimpleNamespace(
        cudaDevAttrIntegrated=1,
        cudaDevAttrComputeCapabilityMajor=2,
        cudaDevAttrComputeCapabilityMinor=3,
        cudaDevAttrMultiProcessorCount=4,
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
                    return (0, {1: self.integrated, 2: 8, 3: 7, 4: 16}[arguments[0]])
                case "cudaGetDeviceProperties":
                    return (0, SimpleNamespace(name=b"Orin\0\0", totalGlobalMem=int(61.4 * 2**30)))
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
                case "cudaStreamCreateWithFlags" | "cudaEventCreateWithFlags" | "cudaGraphInstantiateWithFlags":
                    handle = 1000 + len(self.log)
                    self.live[handle] = name
                    return (0, handle)
                case "cudaStreamEndCapture":
                    return (0, 99)
                case _:
                    return (0,)

        return call


def test_a_graph_is_instantiated_by_the_call_that_every_binding_has() -> None:
    """cudaGraphInstantiate takes two arguments in cuda-python 12 and 13, and three in 11, where it ended a flight."""
    cuda = FakeCudart()
    memory = CudaMemory(cuda)
    memory.capture(memory.stream(), lambda: None)
    assert "cudaGraphInstantiateWithFlags" in cuda.log
    assert "cudaGraphInstantiate" not in cuda.log


def test_bytes_go_to_the_device_and_back() -> None:
    """Host to device to host, through page-locked memory."""
    memory = CudaMemory(FakeCudart())
    assert memory.name == "Orin (sm_87, 16 SMs, 61 GiB)"
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
    assert cuda.log[-3:] == ["cudaStreamEndCapture", "cudaGraphDestroy", "cudaGetLastError"]


def test_a_capture_that_was_invalidated_leaves_no_error_behind() -> None:
    """``cudaStreamEndCapture`` answers 901; the error is read, so that the next call does not report it again."""
    cuda = FakeCudart(broken="cudaStreamEndCapture")
    memory = CudaMemory(cuda)
    with pytest.raises(EngineError, match="cudaStreamEndCapture failed"):
        memory.capture(memory.stream(), lambda: None)
    assert cuda.log[-1] == "cudaGetLastError"


@pytest.mark.parametrize("mapped", [True, False])
def test_memory_can_be_mapped_or_copied_for_a_measurement(mapped: bool) -> None:
    """Whatever the GPU is."""
    buffer = CudaMemory(FakeCudart(integrated=int(not mapped)), mapped=mapped).host(8)
    assert (buffer.mapped is not None) == mapped


class FakeDriver:
    """The driver's own library, called through ctypes: results come through pointers."""

    def __init__(self, count: int = 1, code: int = 0) -> None:
        self.count, self.code = count, code

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = int(7.4 * 2**30)
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = {16: 8, 18: 1, 75: 8, 76: 7}[which]
        return 0


def test_the_driver_names_the_gpu_without_any_package() -> None:
    """An Orin Nano 8 GB and an AGX Orin differ by multiprocessors and memory, which an engine's key needs."""
    gpu = first_gpu(FakeDriver())
    assert gpu.title == "Orin (sm_87, 8 SMs, 7 GiB)"
    assert gpu.integrated


@pytest.mark.parametrize("driver", [FakeDriver(count=0), FakeDriver(code=100)])
def test_a_driver_without_a_gpu_is_missing(driver: FakeDriver) -> None:
    """Exit code 3, with what to check; so is a machine without the driver."""
    with pytest.raises(MissingError, match="nvidia-smi"):
        first_gpu(driver)
    with pytest.raises(MissingError, match="library is not installed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: cannot open")))
        first_gpu()


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
        get_attribute={18: integrated, 16: 8}.__getitem__,
        total_memory=lambda: 15 << 30,
        compute_capability=lambda: (7, 2),
        name=lambda: "Xavier",
        retain_primary_context=lambda: context,
    )
    device_class: Any = lambda _: device  # noqa: E731 - a class whose count is a static method
    device_class.count = lambda: 1
    return SimpleNamespace(
        init=lambda: None,
        Device=device_class,
        device_attribute=SimpleNamespace(INTEGRATED=18, MULTIPROCESSOR_COUNT=16),
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
    assert memory.name == "Xavier (sm_72, 8 SMs, 15 GiB)"
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
