"""What differs most from reference flights: rows whose nearest reference is far, with a cut-off from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.station.archive import ArchivedFlight
    from overflight.station.search.matrix import Matrix

MOST_REFERENCE = 4_096  # rows: their nearest neighbour is sought for every searched row
FEWEST_REFERENCE = 20
BLOCK = 64  # consecutive rows that are held out together, for neighbours in time are nearly the same picture
ALARMS = 0.01  # share of the reference's own rows that would be called different


def reference_rows(flights: Sequence[ArchivedFlight], matrix: Matrix) -> NDArray[np.float32]:
    """Return the reference's embeddings ``[R, D]``, spread evenly over its flights. Raises UsageError for too few."""
    total = sum(flight.rows for flight in flights)
    step = max(1, -(-total // MOST_REFERENCE))
    parts = [matrix.rows(flight, np.arange(0, flight.rows, step)) for flight in flights]
    rows = np.concatenate(parts)
    if len(rows) < FEWEST_REFERENCE:
        raise UsageError(f"--unlike: the reference has {len(rows)} rows, at least {FEWEST_REFERENCE} are needed")
    return rows


def fit_difference(reference: NDArray[np.float32]) -> float:
    """Return the difference that a share ``ALARMS`` of the reference has from the rest of it.

    Rows are compared with the blocks that they are not part of, so that the next frame does not stand for them.
    """
    block = np.arange(len(reference)) // min(BLOCK, max(1, len(reference) // 4))
    nearest = np.empty(len(reference), np.float32)
    for number in range(int(block[-1]) + 1):
        inside = block == number
        nearest[inside] = (reference[inside] @ reference[~inside].T).max(axis=1)
    return float(np.quantile(1 - nearest, 1 - ALARMS, method="higher"))


def differences(flight: ArchivedFlight, reference: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """Return each row's difference ``[rows]``: 1 - the cosine of its nearest reference row."""
    return np.asarray(1 - matrix.nearest(flight, reference), np.float32)
