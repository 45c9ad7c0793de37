"""The best rows of estimated scores are the exact best rows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from overflight.bench.archive import _archive, _unit
from overflight.station.archive.index import open_index
from overflight.station.search.matrix import Matrix
from overflight.station.search.ranking import Scored, best_rows, rank

if TYPE_CHECKING:
    from pathlib import Path

COUNT, WIDTH = 3_000, 64


@pytest.mark.parametrize("fast", [True, False])
def test_rows_come_in_the_order_of_double_precision(tmp_path: Path, monkeypatch: Any, fast: bool) -> None:
    if fast:
        pytest.importorskip("numkong")
    else:
        monkeypatch.setitem(sys.modules, "numkong", None)
    archive, flight = _archive(tmp_path, COUNT, WIDTH)
    term = _unit(1, WIDTH, seed=9)[0]
    matrix = Matrix(archive)
    found, error = matrix.estimates(flight, term)
    exact = archive.vectors(flight).astype(np.float64) @ term.astype(np.float64)
    assert np.abs(found - exact).max() <= error + 1e-6
    assert (error > 1e-6) is fast
    best = best_rows([Scored(flight, np.arange(COUNT), found, found, error)], 50, (term, matrix))
    assert best.scores == pytest.approx(np.sort(exact)[::-1][:50], abs=1e-6)
    assert best.percentiles[0] == pytest.approx(100 * (COUNT - 1) / COUNT)


def test_an_estimate_within_its_error_never_hides_a_better_row(tmp_path: Path) -> None:
    """Recreated: estimates that are wrong by the whole bound, against the best rows."""
    archive, flight = _archive(tmp_path, COUNT, WIDTH)
    term = _unit(1, WIDTH, seed=9)[0]
    exact = archive.vectors(flight).astype(np.float32) @ term
    error = 0.05
    wrong = exact - error * np.sign(exact - np.median(exact)).astype(np.float32)
    best = best_rows([Scored(flight, np.arange(COUNT), wrong, wrong, error)], 20, (term, Matrix(archive)))
    assert list(best.places) == list(np.argsort(-exact, kind="stable")[:20])
    ranked = np.sort(exact)
    expected = [100 * np.searchsorted(ranked, score) / COUNT for score in best.scores]
    assert best.percentiles == pytest.approx(expected, abs=100 / COUNT)


def test_filters_that_leave_nothing_rank_nothing(tmp_path: Path) -> None:
    archive, flight = _archive(tmp_path, 10, WIDTH)
    nothing = np.empty(0, np.float32)
    scored = Scored(flight, np.empty(0, np.int64), nothing, nothing)
    assert not len(best_rows([scored], 5, (_unit(1, WIDTH, seed=1)[0], Matrix(archive))).scores)


def test_one_long_pass_does_not_hide_the_others(tmp_path: Path) -> None:
    """Recreated: a film's 300 tiles were the 300 best rows, and the stills after them were never shown."""
    archive, flight = _archive(tmp_path, 310, WIDTH)
    with open_index(archive.index, create=True) as connection:
        connection.executemany(
            "INSERT INTO rows (id, frame, tile, media_ns, name) VALUES (?, ?, 0, ?, ?)",
            [(1 + row, row, 0 if row < 300 else None, None if row < 300 else f"{row}.jpg") for row in range(310)],
        )
    scores = np.linspace(1, 0, 310, dtype=np.float32)
    scored = [Scored(flight, np.arange(310), scores, scores)]
    with archive.read() as connection:
        hits = rank(connection, scored, 5)
    assert [hit.frame for hit in hits] == [0, 300, 301, 302, 303]
    assert len(hits[0].grouped) == 299
