"""Rows: complete, kept as lines, refused when torn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from overflight.bench.row import RESULTS, Row, append, read
from overflight.runtime.errors import UsageError


def test_a_row_comes_back_whole(row: Callable[..., Row], tmp_path: Path) -> None:
    """What was written is what is read, and a second writing adds to it."""
    first, second = row("engine", "ours:fp32", [3, 1, 2], batch=1), row("engine", "naive:fp32", [], reason="no torch")
    append(tmp_path / "a.jsonl", [first])
    append(tmp_path / "a.jsonl", [second])
    assert read(tmp_path / "a.jsonl") == [first, second]


def test_a_row_says_where_and_when(row: Callable[..., Row]) -> None:
    """Machine, load, commit and moment are in every row."""
    made = row("engine", "ours:fp32", [1])
    assert made.host.cores >= 1
    assert made.host.processor
    assert made.host.kind
    assert made.host.load >= 0
    assert len(made.commit) >= 10
    assert made.taken_utc.endswith("Z")


def test_a_torn_line_is_named(row: Callable[..., Row], tmp_path: Path) -> None:
    """File and line are in the message."""
    append(tmp_path / "a.jsonl", [row("engine", "ours:fp32", [1])])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"schema":1,"run"\n')
    with pytest.raises(UsageError, match=r"a.jsonl:2"):
        read(tmp_path / "a.jsonl")


def test_every_committed_record_can_be_read() -> None:
    """And has its samples, or the reason why not."""
    if not list(RESULTS.glob("*.jsonl")):
        pytest.skip("no records yet")
    for made in read(RESULTS):
        assert bool(made.samples) != bool(made.reason)
