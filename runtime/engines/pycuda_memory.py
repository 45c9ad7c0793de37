"""Device memory through pycuda, on the primary context; it has no graphs, so every call is queued layer by layer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.device_memory import HostBuffer, no_gpu
from overflight.runtime.engines.driver import Gpu
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable


class PycudaMemory:
    """GPU 0 through pycuda.

    ``pycuda.autoinit`` would make a context of its own, bound to one thread, in which TensorRT's handles are invalid:
    the primary context is retained instead. Raises ImportError without pycuda, MissingError where no GPU answers.
    """

    graphs = False

    def __init__(self, library: Any = None) -> None:
        library = library or importlib.import_module("pycuda.driver")
        self._cuda: Any = library
        try:
            library.init()
            count = library.Device.count()
        except Exception as error:  # pycuda's errors live in the module that may be missing
            raise no_gpu(str(error).splitlines()[0]) from error
        if not count:
            raise no_gpu("the driver sees none")
        device = library.Device(0)
        self._integrated = bool(device.get_attribute(library.device_attribute.INTEGRATED))
        major, minor = device.compute_capability()
        sms = device.get_attribute(library.device_attribute.MULTIPROCESSOR_COUNT)
        self.name = Gpu(device.name(), major, minor, sms, device.total_memory()).title
        self._context: Any = device.retain_primary_context()
        self._context.push()
        self._made: dict[int, Any] = {}

    def _keep(self, pointer: int, thing: Any) -> int:
        self._made[pointer] = thing
        return pointer

    def host(self, size: int) -> HostBuffer:
        """Make page-locked host memory, mapped where the GPU is integrated."""
        flags = self._cuda.host_alloc_flags.DEVICEMAP if self._integrated else 0
        array = self._cuda.pagelocked_empty(size, np.uint8, mem_flags=flags)
        pointer = self._keep(int(array.ctypes.data), array)
        mapped = int(array.base.get_device_pointer()) if self._integrated else None
        return HostBuffer(array, pointer, mapped)

    def device(self, size: int) -> int:
        """Make device memory."""
        allocation = self._cuda.mem_alloc(size)
        return self._keep(int(allocation), allocation)

    def stream(self) -> int:
        """Make a stream."""
        stream = self._cuda.Stream()
        return self._keep(int(stream.handle), stream)

    def to_device(self, target: int, source: HostBuffer, size: int, stream: int) -> None:
        """Queue a copy to the device."""
        self._cuda.memcpy_htod_async(target, source.bytes[:size], self._made[stream])

    def to_host(self, target: HostBuffer, source: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""
        self._cuda.memcpy_dtoh_async(target.bytes[:size], source, self._made[stream])

    def event(self) -> int:
        """Make an event that carries no time; waiting for it sleeps."""
        flags = self._cuda.event_flags.DISABLE_TIMING | self._cuda.event_flags.BLOCKING_SYNC
        event = self._cuda.Event(flags)
        return self._keep(id(event), event)

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""
        self._made[event].record(self._made[stream])

    def wait(self, event: int) -> None:
        """Block until an event has happened."""
        self._made[event].synchronize()

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Refuse: pycuda has no graphs."""
        raise EngineError("pycuda cannot capture CUDA graphs; install cuda-python")

    def launch(self, graph: int, stream: int) -> None:
        """Refuse: pycuda has no graphs."""
        raise EngineError("pycuda cannot launch CUDA graphs; install cuda-python")

    def close(self) -> None:
        """Wait for the device, free everything and give the context back."""
        if self._context is None:
            return
        self._context.synchronize()
        self._made.clear()
        self._context.pop()
        self._context.detach()
        self._context = None
