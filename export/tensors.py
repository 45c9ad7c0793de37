"""Stored tensors: where a weight lies in a file, read only when it is needed, as float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

# bfloat16 is read as its 16 bits: they are the upper half of a float32.
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_PIECE_BYTES = 1 << 22
_HEADER_LIMIT_BYTES = 100_000_000  # the safetensors library's own limit


class _Entry(msgspec.Struct, frozen=True):
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class Stored:
    """A tensor on disk: ``start`` is the byte offset of its first element, ``strides`` count elements.

    ``strides`` is None for a tensor whose elements lie in order, as in every safetensors file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None

    def read(self) -> NDArray[np.float32]:
        """Map the tensor and widen it to float32; the mapping is released with the array."""
        if self.dtype not in _FLOATS:
            raise UsageError(
                f"{self.path}: a weight is {self.dtype}, expected F32, F16 or BF16; convert the checkpoint"
            )
        stored = self._map(_FLOATS[self.dtype])
        if self.dtype == "BF16":
            widened: NDArray[np.float32] = (stored.astype("<u4") << 16).view("<f4")
            return widened
        return np.asarray(stored, dtype=np.float32)

    def pieces(self) -> Iterator[bytes]:
        """Read the tensor's bytes in order, a few megabytes at a time, without mapping them."""
        if self.strides is not None:
            yield np.ascontiguousarray(self._map(_FLOATS.get(self.dtype, np.dtype("u1")))).tobytes()
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.size_bytes
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                left -= len(piece)
                yield piece

    @property
    def size_bytes(self) -> int:
        """The size of the tensor's elements."""
        return math.prod(self.shape) * ITEM_BYTES.get(self.dtype, 0)

    def _map(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        if 0 in self.shape:
            return np.zeros(self.shape, dtype)
        if self.strides is None:
            return np.memmap(self.path, dtype, "r", self.start, self.shape or (1,)).reshape(self.shape)
        span = span_of(self.shape, self.strides)
        flat = np.memmap(self.path, dtype, "r", self.start, (span,))
        steps = tuple(stride * dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)


def span_of(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return how many elements lie between the first and the last of a strided tensor, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def read_safetensors(path: Path) -> dict[str, Stored]:
    """Read where each tensor of a safetensors file lies; the library checks that the file is complete.

    Raises UsageError for a file that is not one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = decode_json(raw.read(min(length, _HEADER_LIMIT_BYTES)), dict[str, msgspec.Raw])
        entries = {name: decode_json(header[name], _Entry) for name in names}
    except (OSError, SafetensorError, msgspec.DecodeError, KeyError) as error:
        raise UsageError(f"{path}: not a complete safetensors file ({error}); download it again") from error
    return {
        name: Stored(path, entry.dtype, entry.shape, 8 + length + entry.data_offsets[0])
        for name, entry in entries.items()
    }
