"""Segments: the embeddings of one flight as one file of float16 rows, mapped into memory when searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import OverflightError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIX = ".f16.npy"
_KEPT_BITS = np.uint32(0x8FFFE000).astype(np.int32)  # sign, exponent and fraction of a half, shifted to a float's place
_REBIAS = np.float32(2.0**112)  # the exponents of float32 and float16 are biased by 127 and 15


class SegmentWriter:
    """Appends unit embeddings to a new segment; NumPy's own format, so that any tool reads it."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width, self.rows = path, width, 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, vectors: NDArray[np.float16]) -> None:
        """Append vectors ``[N, D]`` or ``[D]``."""
        flat = np.ascontiguousarray(vectors, dtype="<f2").reshape(-1, self.width)
        self._file.write(flat.tobytes())
        self.rows += len(flat)

    def close(self) -> None:
        """Write the number of rows into the header and sync the file."""
        import os

        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write_header(self) -> None:
        """Write a header of constant length, so that the final one fits over the first."""
        header = {"descr": "<f2", "fortran_order": False, "shape": (self.rows, self.width)}
        text = repr(header).ljust(118 - 1).encode("latin1") + b"\n"
        self._file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def open_segment(path: Path, rows: int, width: int) -> NDArray[np.float16]:
    """Map a segment into memory, ``[rows, width]``. Raises OverflightError when it has another shape."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OverflightError(f"{path}: not a segment ({error}); run: overflight archive check --repair") from error
    if mapped.shape != (rows, width) or mapped.dtype != np.float16:
        raise OverflightError(
            f"{path}: {mapped.dtype} {list(mapped.shape)}, expected float16 {[rows, width]}; "
            "run: overflight archive check --repair"
        )
    return np.asarray(mapped)


def to_float32(halves: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Convert finite float16 values exactly, five times as fast as NumPy's own cast (2.4, x86-64).

    The bits are shifted into a float's place; one product corrects the exponent, of subnormal numbers too.
    """
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))  # extends the sign bit
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _KEPT_BITS, out=bits)
    np.multiply(out, _REBIAS, out=out)


def write_segment(path: Path, vectors: Iterable[NDArray[np.float16]], width: int) -> int:
    """Write a whole segment and return its rows."""
    writer = SegmentWriter(path, width)
    try:
        for part in vectors:
            writer.append(part)
    finally:
        writer.close()
    return writer.rows
