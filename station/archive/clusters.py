"""Groups of an archive by content: k-means over the embeddings of frames, with the most typical row of each group."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.station.archive.store import Archive, ArchivedFlight

MOST_ROWS = 100_000


class Cluster(msgspec.Struct, frozen=True):
    """A group of frames: size, share, flights, the most typical row, and the labels that its frames got in flight."""

    size: int
    share: float
    flights: dict[str, int]
    typical_row: int
    labels: dict[str, int]


def cluster(archive: Archive, tower: str, count: int, *, seed: int = 0) -> list[Cluster]:
    """Group the whole frames of one tower into ``count`` clusters, the largest first.

    Raises UsageError for fewer rows than clusters, MissingError without scikit-learn.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise missing_extra("scikit-learn", "probe") from error
    flights = [flight for flight in archive.flights() if flight.tower == tower]
    if not flights:
        raise UsageError(f"{archive.directory}: no flight of this model (tower {tower[:12]}); name its --bundle")
    ids, names, labels = _frames(archive, flights)
    if len(ids) < count:
        raise UsageError(f"{len(ids)} frames for {count} clusters; ask for fewer with --count")
    vectors = np.concatenate([archive.vectors(one)[_numbers(one, ids)].astype(np.float32) for one in flights])
    means: Any = MiniBatchKMeans(count, random_state=seed, n_init=3).fit(vectors)
    groups = []
    for number in range(count):
        inside = np.flatnonzero(means.labels_ == number)
        if not len(inside):
            continue
        typical = inside[np.argmax(vectors[inside] @ means.cluster_centers_[number])]
        groups.append(
            Cluster(
                size=len(inside),
                share=len(inside) / len(ids),
                flights=dict(Counter(names[row] for row in inside).most_common()),
                typical_row=int(ids[typical]),
                labels=dict(Counter(labels[row] or "unknown" for row in inside).most_common(3)),
            )
        )
    return sorted(groups, key=lambda group: -group.size)


def _frames(archive: Archive, flights: list[ArchivedFlight]) -> tuple[NDArray[np.int64], list[str], list[str | None]]:
    """Return the rows of whole frames (thinned above ``MOST_ROWS``), their flights' names and their labels."""
    ids: list[int] = []
    names: list[str] = []
    labels: list[str | None] = []
    with archive.read() as connection:
        for flight in flights:
            span = (flight.first, flight.first + flight.rows)
            query = "SELECT id, label FROM rows WHERE id >= ? AND id < ? AND tile = 0 ORDER BY id"
            for row, label in connection.execute(query, span):
                ids.append(row)
                names.append(flight.name)
                labels.append(label)
    step = -(-len(ids) // MOST_ROWS) or 1
    return np.array(ids[::step], np.int64), names[::step], labels[::step]


def _numbers(flight: ArchivedFlight, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    inside = (ids >= flight.first) & (ids < flight.first + flight.rows)
    return np.asarray(ids[inside] - flight.first, np.int64)
