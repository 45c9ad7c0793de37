"""Cosines of terms with every embedding of the flights of one tower: exact, or within a proven bound."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from overflight.station.archive.segment import to_float32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from overflight.station.archive import Archive, ArchivedFlight

CHUNK_ROWS = 512  # in float32 it stays in the processor's cache while it is multiplied
FEW_TERMS = 4  # so few wait for memory: a second thread of BLAS only makes every part wait for it too
CACHE_BYTES = 512_000_000  # of float32 copies, so that a second query needs no conversion
LONGEST_ROW = 1.01  # unit vectors, after they were rounded to float16
SUM_ERROR = 1e-6  # of sums in float32, NumKong's and NumPy's; measured 4e-8 and 2e-7


class Matrix:
    """The embeddings of several flights, float16 on disk. Repeated queries use a float32 copy while it fits."""

    def __init__(self, archive: Archive, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._archive = archive
        self._free_bytes = cache_bytes
        self._cached: dict[str, NDArray[np.float32]] = {}

    def cosines(self, flight: ArchivedFlight, terms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosines ``[T, rows]`` of unit terms ``[T, D]`` with a flight's embeddings."""
        found = np.empty((len(terms), flight.rows), np.float32)
        with threadpool_limits(limits=1 if len(terms) <= FEW_TERMS else None):
            for start, part in self._parts(flight):
                np.matmul(terms, part.T, out=found[:, start : start + len(part)])
        return found

    def estimates(self, flight: ArchivedFlight, term: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Return the cosines ``[rows]`` of one unit term ``[D]``, and how far each may be from the exact one.

        NumKong multiplies the mapped float16 rows as they are, which needs no copy in float32; the term is rounded to
        float16 for it. Rows are unit vectors, so the length of what was rounded away bounds the error of every cosine.
        Without NumKong the cosines are exact and the bound is 0.
        """
        try:
            import numkong
        except ImportError:
            return self.cosines(flight, term[None])[0], 0.0
        rounded = term.astype(np.float16)
        bound = float(np.linalg.norm(term - rounded.astype(np.float32))) * LONGEST_ROW + SUM_ERROR
        found = numkong.cdist(rounded[None], self._archive.vectors(flight), "dot", threads=os.cpu_count() or 1)
        return np.asarray(found, np.float32)[0], bound

    def nearest(self, flight: ArchivedFlight, others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the highest cosine of each row of a flight with other unit vectors ``[N, D]``, ``[rows]``."""
        found = np.empty(flight.rows, np.float32)
        for start, part in self._converted(flight):
            found[start : start + len(part)] = (part @ others.T).max(axis=1)
        return found

    def rows(self, flight: ArchivedFlight, numbers: NDArray[np.int64] | np.int64) -> NDArray[np.float32]:
        """Return some embeddings of a flight, or one, in float32."""
        return self._archive.vectors(flight)[numbers].astype(np.float32)

    def _parts(self, flight: ArchivedFlight) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the embeddings in float32: whole where they are cached, else in parts that stay in the cache."""
        size = flight.rows * flight.width * 4
        if flight.id not in self._cached and size <= self._free_bytes:
            whole = np.empty((flight.rows, flight.width), np.float32)
            for start, part in self._converted(flight):
                whole[start : start + len(part)] = part
            self._cached[flight.id] = whole
            self._free_bytes -= size
        if flight.id in self._cached:
            yield 0, self._cached[flight.id]
        else:
            yield from self._converted(flight)

    def _converted(self, flight: ArchivedFlight) -> Iterator[tuple[int, NDArray[np.float32]]]:
        vectors = self._archive.vectors(flight)
        buffer = np.empty((CHUNK_ROWS, flight.width), np.float32)
        for start in range(0, flight.rows, CHUNK_ROWS):
            part = vectors[start : start + CHUNK_ROWS]
            to_float32(part, buffer[: len(part)])
            yield start, buffer[: len(part)]
