"""Opening the GPU with the CUDA binding that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.runtime.errors import MissingError

if TYPE_CHECKING:
    from overflight.runtime.engines.device_memory import DeviceMemory


def open_memory(*, mapped: bool | None = None) -> DeviceMemory:
    """Open the GPU: with cuda-python, or with pycuda where only that is installed.

    ``mapped`` is for measurements: see ``CudaMemory``.

    Raises MissingError, before any GPU library is touched, on a machine without a usable GPU.
    """
    from overflight.runtime.engines.cuda_memory import CudaMemory

    try:
        return CudaMemory(mapped=mapped)
    except ImportError:
        from overflight.runtime.engines.pycuda_memory import PycudaMemory

        try:
            return PycudaMemory()
        except ImportError as error:
            raise MissingError(
                "neither cuda-python nor pycuda is installed; run: pip install 'overflight[tensorrt]'"
            ) from error


def gpu_name() -> str:
    """Return what engines are bound to: the first GPU's name, compute capability, multiprocessors and memory.

    Only the driver is needed. Raises MissingError.
    """
    from overflight.runtime.engines.driver import first_gpu

    return first_gpu().title
