"""The cut-off of a text search: the score that few texts of absent things reach anywhere in the archive."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.durable import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.station.archive import Archive, ArchivedFlight
    from overflight.station.search.matrix import Matrix

FALSE_ALARM = 0.05  # share of absent things that may pass; measured on 30 scenes: docs/archive.md


@dataclass(frozen=True)
class Cutoff:
    """The least cosine of a text that counts as found.

    ``maxima`` float32 ``[B]`` are the best cosines of the texts that set it, over the searched flights. ``measured`` is
    the share of ``held_out`` other texts of absent things that reach it: the false alarms that this archive really has.
    """

    cosine: float
    wanted: float
    measured: float
    held_out: int
    maxima: NDArray[np.float32]

    def percentile(self, cosine: float) -> float:
        """Return the share of background texts, in percent, whose best cosine is lower."""
        return float((self.maxima < cosine).mean() * 100)


def background_texts() -> list[str]:
    """Return the shipped texts of things that are hardly ever in an archive."""
    lines = (resources.files("overflight.station.search") / "background.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def fit_cutoff(
    archive: Archive,
    flights: Sequence[ArchivedFlight],
    matrix: Matrix,
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    false_alarm: float = FALSE_ALARM,
) -> Cutoff:
    """Fit the cut-off on half of the background texts over whole flights, and measure it on the other half.

    ``embed`` turns texts into unit vectors; it is called when the archive has not kept them. The flights count whole,
    whatever is filtered: a search in a part of them has fewer chances of a false alarm, never more.
    """
    maxima = np.max([_maxima(archive, flight, matrix, embed) for flight in flights], axis=0)
    fitting, held_out = maxima[0::2], maxima[1::2]
    cosine = float(np.quantile(fitting, 1 - false_alarm, method="higher"))
    return Cutoff(cosine, false_alarm, float((held_out > cosine).mean()), len(held_out), np.sort(fitting))


def _maxima(
    archive: Archive,
    flight: ArchivedFlight,
    matrix: Matrix,
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return each background text's best cosine in a flight ``[B]``, kept in the archive's cache."""
    texts = background_texts()
    key = hashlib.sha256("\n".join((flight.tower, flight.files["segment"], *texts)).encode()).hexdigest()[:16]
    kept = archive.directory / "cache" / f"background-{flight.id}-{key}.npy"
    try:
        found = np.load(kept, allow_pickle=False)
    except (OSError, ValueError):
        found = matrix.cosines(flight, background_vectors(archive, flight.tower, embed)).max(axis=1)
        _keep(kept, found)
    return np.asarray(found, np.float32)


def background_vectors(
    archive: Archive, tower: str, embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the background texts as unit vectors ``[B, D]``, kept in the archive's cache."""
    texts = background_texts()
    key = hashlib.sha256("\n".join((tower, *texts)).encode()).hexdigest()[:16]
    kept = archive.directory / "cache" / f"background-{key}.npy"
    try:
        return np.asarray(np.load(kept, allow_pickle=False), np.float32)
    except (OSError, ValueError):
        made = embed(texts)
        _keep(kept, made)
        return made


def _keep(path: object, values: NDArray[np.float32]) -> None:
    """Keep values in the cache; an archive on a read-only disk is searched without one."""
    import io
    from pathlib import Path

    target = Path(str(path))
    buffer = io.BytesIO()
    np.save(buffer, values)
    try:
        target.parent.mkdir(exist_ok=True)
        write_atomically(target, buffer.getvalue())
    except OSError:
        return
