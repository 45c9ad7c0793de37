"""Cost of searching an archive: our ranking next to NumPy, usearch and faiss over the same embeddings, in turns."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.host import make_row, new_run
from overflight.bench.sample import SamplingPlan, take_turns, timed
from overflight.runtime.errors import OverflightError
from overflight.station.archive import Archive
from overflight.station.archive.segment import write_segment
from overflight.station.archive.store import ArchivedFlight
from overflight.station.search.matrix import Matrix
from overflight.station.search.ranking import Scored, best_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from overflight.bench.row import Row
    from overflight.bench.sample import Report

    Search = Callable[[], object]

BEST = 50
PIECE = 50_000  # rows made at once
COPIES_BYTES = 2_000_000_000  # a float32 copy for NumPy alone is measured up to here


def measure_archive(
    counts: Sequence[int],
    widths: Sequence[int],
    plan: SamplingPlan,
    *,
    report: Report = lambda stage, share: None,
) -> list[Row]:
    """Find the best rows of one flight for one text vector, warm in turns; the first, cold search is a figure."""
    return [row for width in widths for count in counts for row in _measure(count, width, plan, report)]


def _measure(count: int, width: int, plan: SamplingPlan, report: Report) -> list[Row]:
    run = new_run()
    with tempfile.TemporaryDirectory() as scratch:
        report(f"writing {count} embeddings of {width} numbers", 0.0)
        archive, flight = _archive(Path(scratch), count, width)
        makers = _makers(archive, flight)
        searches, figures = {}, {}
        for name, make in makers.items():
            report(f"{name}, the first search", 0.0)
            searches[name], figures[name] = _first(archive, flight, make)
        samples = take_turns({name: timed(search) for name, search in searches.items()}, plan, report)
        return [
            make_row(
                "archive",
                name,
                samples[name],
                run=run,
                included=f"a text's vector in, the {BEST} best of the mapped float16 rows out; wall clock",
                model=f"{width} numbers",
                settings={"count": count, "width": width},
                figures=figures[name],
            )
            for name in searches
        ]


def _first(archive: Archive, flight: ArchivedFlight, make: Callable[[], Search]) -> tuple[Search, dict[str, float]]:
    """Drop the segment from the page cache, prepare and search once: nanoseconds, and resident bytes that stay."""
    _drop(archive.segment_path(flight.id))
    gc.collect()
    before, began = _private_bytes(), time.perf_counter_ns()
    search = make()
    search()
    cold_ns = time.perf_counter_ns() - began
    gc.collect()
    return search, {"cold_ns": float(cold_ns), "own_bytes": float(max(0, _private_bytes() - before))}


def _makers(archive: Archive, flight: ArchivedFlight) -> dict[str, Callable[[], Search]]:
    """Return what is compared, by name; what is not installed is left out."""
    term = _unit(1, flight.width, seed=1)[0]
    half = term.astype(np.float16)[None]
    makers: dict[str, Callable[[], Search]] = {
        "ours": lambda: partial(_rank, Matrix(archive), flight, term, exact=False),
        "ours without numkong": lambda: partial(_rank, Matrix(archive), flight, term, exact=True),
    }
    if flight.rows * flight.width * 4 <= COPIES_BYTES:
        makers["numpy float32"] = lambda: partial(_numpy, archive.vectors(flight).astype(np.float32), term)
    try:
        from usearch.index import MetricKind, search

        makers["usearch exact"] = lambda: partial(
            search, archive.vectors(flight), half, BEST, MetricKind.IP, exact=True, threads=os.cpu_count() or 1
        )
    except ImportError:
        pass
    try:
        import faiss

        makers["faiss flat float16"] = lambda: _faiss(faiss, archive.vectors(flight), term)
    except ImportError:
        pass
    return makers


def _rank(matrix: Matrix, flight: ArchivedFlight, term: NDArray[np.float32], *, exact: bool) -> object:
    found, error = (matrix.cosines(flight, term[None])[0], 0.0) if exact else matrix.estimates(flight, term)
    numbers = np.arange(flight.rows)
    return best_rows([Scored(flight, numbers, found, found, error)], BEST, (term, matrix))


def _numpy(vectors: NDArray[np.float32], term: NDArray[np.float32]) -> object:
    found = vectors @ term
    rows = np.argpartition(-found, min(BEST, len(found)) - 1)[:BEST]
    return rows[np.argsort(-found[rows])]


def _faiss(faiss: Any, vectors: NDArray[np.float16], term: NDArray[np.float32]) -> Search:
    width = vectors.shape[1]
    index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(np.zeros((1, width), np.float32))
    for start in range(0, len(vectors), PIECE):
        index.add(vectors[start : start + PIECE].astype(np.float32))
    return partial(index.search, term[None], BEST)


def _archive(folder: Path, count: int, width: int) -> tuple[Archive, ArchivedFlight]:
    """Write an archive's segment of random unit embeddings, without an index."""
    archive = Archive(folder)
    flight = ArchivedFlight(
        id="noise",
        name="noise",
        kind="flight",
        source="noise",
        source_path=None,
        source_sha256=None,
        tower="noise",
        model="noise",
        width=width,
        first=1,
        rows=count,
        frames=count,
        unindexed=0,
        began_utc_ns=None,
        ended_utc_ns=None,
        added_utc_ns=0,
        files={},
    )
    archive.segment_path(flight.id).parent.mkdir(parents=True)
    write_segment(archive.segment_path(flight.id), _pieces(count, width), width)
    return archive, flight


def _pieces(count: int, width: int) -> Iterator[NDArray[np.float16]]:
    for start in range(0, count, PIECE):
        yield _unit(min(PIECE, count - start), width, seed=2 + start).astype(np.float16)


def _unit(count: int, width: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _drop(path: Path) -> None:
    """Ask the system to forget a file's pages, so that the next read comes from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _private_bytes() -> int:
    """Return the process's resident memory that is not a mapped file. Raises OverflightError off Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise OverflightError("bench archive reads /proc, which only Linux has; run it there") from error
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
