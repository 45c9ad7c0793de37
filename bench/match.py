"""Cost of matching and searching: an embedding against labels, a text against a flight's embeddings."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from overflight.bench.bank import random_bank
from overflight.bench.host import make_row, new_run
from overflight.bench.sample import SamplingPlan, take_turns, timed
from overflight.runtime.bundle import Bundle
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.flight.journal import connect
from overflight.runtime.flight.journal_reader import read_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.bench.row import Row
    from overflight.bench.sample import Report

_PIECE = 4096  # rows converted from 16 bit at a time: they stay in the cache


def measure_match(
    directory: Path, labels: Sequence[int], plan: SamplingPlan, *, report: Report = lambda stage, share: None
) -> list[Row]:
    """Match and decide against banks of so many random labels, on one thread as in flight."""
    bundle = Bundle.open(directory)
    embedding = _unit(1, bundle.manifest.width)[0]
    calls = {}
    for count in labels:
        bank = random_bank(bundle.manifest, count)
        matcher, decider = Matcher(bank), Decider(bank)
        calls[str(count)] = timed(
            lambda matcher=matcher, decider=decider: decider.decide(matcher.match(embedding)),  # type: ignore[misc]
            repeat=max(1, 20_000 // max(count, 200)),
            clock=time.thread_time_ns,
        )
    with threadpool_limits(limits=1):
        samples = take_turns(calls, plan, report)
    run = new_run()
    return [
        make_row(
            "match",
            "match and decide",
            samples[str(count)],
            run=run,
            included="unit embedding in, verdict out; one thread, by its own clock",
            model=bundle.manifest.name,
            settings={"labels": count, "width": bundle.manifest.width},
        )
        for count in labels
    ]


def measure_search(
    counts: Sequence[int], width: int, plan: SamplingPlan, *, report: Report = lambda stage, share: None
) -> list[Row]:
    """Rank random embeddings of a flight's journal by one text vector; reading the journal is timed separately."""
    query = _unit(1, width)[0]
    calls, read_ns = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, count in enumerate(counts):
            report(f"writing a journal of {count} embeddings", number / len(counts))
            path = Path(scratch) / f"{count}.sqlite"
            _write_journal(path, count, width)
            began = time.perf_counter_ns()
            vectors = read_embeddings(path)[1]
            read_ns[count] = time.perf_counter_ns() - began
            path.unlink()
            calls[str(count)] = timed(partial(rank, vectors, query), clock=time.thread_time_ns)
        with threadpool_limits(limits=1):  # it waits for memory: more threads only wait together
            samples = take_turns(calls, plan, report)
    run = new_run()
    return [
        make_row(
            "search",
            "rank embeddings",
            samples[str(count)],
            run=run,
            included="a text's vector and embeddings in memory in, the ten best out; one thread, by its own clock",
            settings={"count": count, "width": width},
            figures={"read_ns": float(read_ns[count])},
        )
        for count in counts
    ]


def rank(vectors: NDArray[np.float16], query: NDArray[np.float32], best: int = 10) -> NDArray[np.int64]:
    """Return the rows of ``vectors`` float16 ``[N, D]`` with the highest cosines to ``query`` ``[D]``, best first."""
    cosines = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _PIECE):
        np.matmul(vectors[start : start + _PIECE].astype(np.float32), query, out=cosines[start : start + _PIECE])
    rows = np.argpartition(-cosines, min(best, len(cosines)) - 1)[:best]
    return rows[np.argsort(-cosines[rows])]


def _write_journal(path: Path, count: int, width: int) -> None:
    """Fill a journal without flying: a million observations would take hours."""
    noise = _unit(4096, width).astype(np.float16)
    rows = ((n, n, n, None, b"{}", noise[n % len(noise)].tobytes()) for n in range(count))
    connection = connect(path)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO observations (frame, captured_ns, captured_utc_ns, label, record, embedding) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        rows,
    )
    connection.execute("COMMIT")
    connection.close()


def _unit(count: int, width: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
