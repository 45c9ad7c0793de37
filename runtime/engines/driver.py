"""Which GPU is here, asked of NVIDIA's driver itself: no CUDA library and no Python package is needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from overflight.runtime.engines.device_memory import no_gpu

# CUdevice_attribute of cuda.h.
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One GPU: ``multiprocessors`` that are switched on in this power mode, ``memory`` in bytes.

    "Orin (sm_87)" is five boards and more power modes: an engine's tactics depend on the multiprocessors, and whether
    it fits on the memory.
    """

    name: str
    major: int
    minor: int
    multiprocessors: int
    memory: int
    integrated: bool = False

    @property
    def title(self) -> str:
        """The name that engines are bound to. Memory is rounded: the kernel's share changes with its updates."""
        gib = round(self.memory / (1 << 30))
        return f"{self.name} (sm_{self.major}{self.minor}, {self.multiprocessors} SMs, {gib} GiB)"


def first_gpu(library: Any = None) -> Gpu:
    """Return the first GPU. Raises MissingError where the driver is not installed or sees none."""
    cuda = library or _load()
    _call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise no_gpu("the driver sees none")
    device = ctypes.c_int()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(cuda, "cuDeviceGetName", name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    return Gpu(
        name.value.decode(errors="replace"),
        attribute(_MAJOR),
        attribute(_MINOR),
        attribute(_MULTIPROCESSORS),
        memory.value,
        bool(attribute(_INTEGRATED)),
    )


def _load() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise no_gpu(f"the driver's library is not installed: {error}") from error


def _call(library: Any, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code:
        raise no_gpu(f"{name} answered error {code}")
