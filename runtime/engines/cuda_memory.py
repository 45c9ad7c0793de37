"""Device memory through cuda-python: the runtime API, so the primary context, shared with every other library."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.device_memory import HostBuffer, cuda_failed, no_gpu
from overflight.runtime.engines.driver import Gpu
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable


class CudaMemory:
    """GPU 0 through ``cuda.bindings.runtime`` (cuda-python 12 and 13) or ``cuda.cudart`` (11).

    ``mapped`` forces host memory that the GPU reads and writes itself, or memory that is copied; None maps it where the
    GPU is integrated. Raises ImportError where neither library is installed, MissingError where no GPU answers.
    """

    graphs = True

    def __init__(self, library: Any = None, *, mapped: bool | None = None) -> None:
        self._cuda: Any = library or _load_library()
        self._frees: list[Callable[[], None]] = []
        count = _count(self._cuda)
        if not count:
            raise no_gpu("the driver sees none")
        self._call("cudaSetDevice", 0)
        kinds = self._cuda.cudaDeviceAttr
        integrated, major, minor, sms = (
            int(self._call("cudaDeviceGetAttribute", kind, 0))
            for kind in (
                kinds.cudaDevAttrIntegrated,
                kinds.cudaDevAttrComputeCapabilityMajor,
                kinds.cudaDevAttrComputeCapabilityMinor,
                kinds.cudaDevAttrMultiProcessorCount,
            )
        )
        self._mapped = bool(integrated) if mapped is None else mapped
        found = self._call("cudaGetDeviceProperties", 0)
        plain = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
        self.name = Gpu(plain.rstrip(chr(0)), major, minor, sms, int(found.totalGlobalMem)).title

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise cuda_failed(name, getattr(error, "name", str(error)))
        return values[0] if values else None

    def host(self, size: int) -> HostBuffer:
        """Make page-locked host memory, mapped or to be copied."""
        flag = self._cuda.cudaHostAllocMapped if self._mapped else self._cuda.cudaHostAllocDefault
        pointer = int(self._call("cudaHostAlloc", size, flag))
        self._frees.append(lambda: self._call("cudaFreeHost", pointer))
        mapped = int(self._call("cudaHostGetDevicePointer", pointer, 0)) if self._mapped else None
        view = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_uint8)), (size,))
        return HostBuffer(view, pointer, mapped)

    def device(self, size: int) -> int:
        """Make device memory."""
        pointer = int(self._call("cudaMalloc", size))
        self._frees.append(lambda: self._call("cudaFree", pointer))
        return pointer

    def stream(self) -> int:
        """Make a non-blocking stream: graphs cannot be captured on the default one."""
        stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._frees.append(lambda: self._call("cudaStreamDestroy", stream))
        return int(stream)

    def to_device(self, target: int, source: HostBuffer, size: int, stream: int) -> None:
        """Queue a copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source.pointer, size, kind, stream)

    def to_host(self, target: HostBuffer, source: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.pointer, source, size, kind, stream)

    def event(self) -> int:
        """Make an event that carries no time; waiting for it sleeps, the camera needs the core."""
        flags = self._cuda.cudaEventDisableTiming | self._cuda.cudaEventBlockingSync
        event = self._call("cudaEventCreateWithFlags", flags)
        self._frees.append(lambda: self._call("cudaEventDestroy", event))
        return int(event)

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Block until an event has happened."""
        self._call("cudaEventSynchronize", event)

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Capture what ``work`` queues on ``stream`` into a graph; other threads may use the GPU meanwhile.

        The stream can be used again whatever happens. Raises EngineError when something cannot be captured.
        """
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            self._abandon_capture(stream)
            raise
        try:
            graph = self._call("cudaStreamEndCapture", stream)
        except EngineError:
            self._cuda.cudaGetLastError()  # reading it clears it: the next call would report it again
            raise
        try:
            ready = self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._frees.append(lambda: self._call("cudaGraphExecDestroy", ready))
        return int(ready)

    def _abandon_capture(self, stream: int) -> None:
        """End a capture that failed. A stream left capturing would refuse everything after it."""
        error, graph = self._cuda.cudaStreamEndCapture(stream)
        if error == self._cuda.cudaError_t.cudaSuccess:
            self._cuda.cudaGraphDestroy(graph)
        self._cuda.cudaGetLastError()

    def launch(self, graph: int, stream: int) -> None:
        """Queue a captured graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def close(self) -> None:
        """Wait for the device and free everything, last made first."""
        if self._frees:
            self._call("cudaDeviceSynchronize")
        while self._frees:
            self._frees.pop()()


def _load_library() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError:
        from cuda import cudart as runtime
    return runtime


def _count(library: Any) -> int:
    try:
        error, count = library.cudaGetDeviceCount()
    except Exception as failure:  # without a driver some versions raise their loader's own errors
        raise no_gpu(str(failure).splitlines()[0]) from failure
    if error != library.cudaError_t.cudaSuccess:
        raise no_gpu(getattr(error, "name", str(error)))
    return int(count)
