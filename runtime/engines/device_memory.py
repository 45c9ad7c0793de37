"""Device memory: buffers, streams and graphs of one GPU behind a small protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from overflight.runtime.errors import EngineError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Page-locked host memory: ``bytes`` uint8 ``[n]`` over ``pointer``.

    ``mapped`` is the address at which the GPU sees the same memory, or None where it does not: on a board whose GPU
    shares the processor's memory an engine reads and writes it there, and nothing is ever copied.
    """

    bytes: NDArray[np.uint8]
    pointer: int
    mapped: int | None


class DeviceMemory(Protocol):
    """What a runner needs of one GPU. Pointers, streams, events and graphs are opaque integers.

    Everything made is freed by ``close``. One instance belongs to one thread.
    """

    name: str
    graphs: bool

    def host(self, size: int) -> HostBuffer:
        """Make page-locked host memory of ``size`` bytes, mapped where the GPU is integrated."""

    def device(self, size: int) -> int:
        """Make device memory of ``size`` bytes."""

    def stream(self) -> int:
        """Make a stream that does not wait for the default one."""

    def to_device(self, target: int, source: HostBuffer, size: int, stream: int) -> None:
        """Queue a copy of ``size`` bytes to the device."""

    def to_host(self, target: HostBuffer, source: int, size: int, stream: int) -> None:
        """Queue a copy of ``size`` bytes to the host."""

    def event(self) -> int:
        """Make an event that carries no time."""

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""

    def wait(self, event: int) -> None:
        """Block until an event has happened."""

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Capture what ``work`` queues on ``stream`` and return it as a graph, ready to be launched."""

    def launch(self, graph: int, stream: int) -> None:
        """Queue a captured graph."""

    def close(self) -> None:
        """Wait for the device and free everything; safe to call twice."""


def no_gpu(reason: str) -> MissingError:
    """Say that there is no GPU to use."""
    return MissingError(f"no usable NVIDIA GPU ({reason}); check the driver with nvidia-smi, or use a CPU engine")


def cuda_failed(call: str, reason: str) -> EngineError:
    """Say that the device refused a call."""
    return EngineError(f"{call} failed ({reason}); the GPU may be out of memory or lost, see dmesg")
