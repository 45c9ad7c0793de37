"""Tables, comparisons and plots from rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from overflight.bench.compare import compare
from overflight.bench.row import RESULTS, Row, read
from overflight.bench.table import BEGIN, END, markdown, page, place, placed, summary
from overflight.runtime.errors import UsageError

ROOT = Path(__file__).parents[2]


def contest(row: Callable[..., Row], run: str, factor: float) -> list[Row]:
    theirs = [10_000_000 + n * 1000 for n in range(20)]
    ours = [int(ns * factor) for ns in theirs]
    return [
        row("engine", "transformers_torch:fp32", theirs, run=run, batch=1),
        row("engine", "ours:fp32", ours, run=run, batch=1),
    ]


def test_the_table_has_every_subject_and_its_ratio(row: Callable[..., Row]) -> None:
    """Fastest first; who could not run stands with the reason."""
    rows = [*contest(row, "a", 0.25), row("engine", "open_clip:fp32", [], run="a", reason="no | module", batch=1)]
    text = markdown(rows)
    assert text.index("| Overflight fp32 |") < text.index("| transformers + torch fp32 |")
    assert "0.25 (0.25 to 0.25)" in text
    assert "no / module" in text


def test_a_starved_subject_is_marked_and_compared_with_nothing(row: Callable[..., Row]) -> None:
    """Its time is shown as it was; no ratio is formed with it, in either direction."""
    rows = contest(row, "a", 0.01)
    rows[0] = msgspec.structs.replace(rows[0], figures={**rows[0].figures, "granted": 0.31})
    text = markdown(rows)
    assert "starved: got 31% of its processor time" in text
    assert "0.01" not in text
    assert "starved" in summary(rows)
    with pytest.raises(UsageError, match="no subject"):
        compare(rows, rows, "transformers_torch:fp32")
    with pytest.raises(UsageError, match="can be compared"):
        compare(rows[:1], rows)


def test_only_the_newest_run_of_a_model_is_shown(row: Callable[..., Row]) -> None:
    """Old records stay in the file, not in the table."""
    text = markdown([*contest(row, "a", 0.25), *contest(row, "b", 0.5)])
    assert "0.5 (0.5 to 0.5)" in text
    assert "0.25" not in text


def test_heats_of_one_command_stand_in_one_table(row: Callable[..., Row]) -> None:
    """Each subject over the baseline of its own run; the baseline itself stands there once."""
    first = contest(row, "a", 0.5)
    second = [row("engine", "transformers_torch:fp32", [20_000_000] * 20, run="b", batch=1)]
    second.append(row("engine", "open_clip:fp32", [5_000_000] * 20, run="b", batch=1))
    text = markdown([*first, *second])
    assert text.count("transformers + torch fp32") == 1
    assert "| Overflight fp32 | 5.00 | 5.01 | 0.5 (0.5 to 0.5)" in text.replace("| 5 |", "| 5.00 |")
    assert "| open_clip fp32 | 5 | 5 | 0.25 (0.25 to 0.25)" in text


def test_two_runs_agree_or_not(row: Callable[..., Row]) -> None:
    """The ranges meet, or they do not."""
    one, same, other = (contest(row, run, factor) for run, factor in (("a", 0.25), ("b", 0.25), ("c", 0.5)))
    assert [found.agrees for found in compare(one, same)] == [True]
    assert [found.agrees for found in compare(one, other)] == [False]
    with pytest.raises(UsageError, match="no subject"):
        compare(one, other, "naive:fp32")


def test_a_table_is_put_between_its_markers(tmp_path: Path) -> None:
    """The rest of the page stays; a page without markers is refused."""
    at = tmp_path / "page.md"
    at.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    place(at, "new")
    assert at.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert placed(at) == "new"
    at.write_text("nothing")
    with pytest.raises(UsageError, match="markers"):
        place(at, "new")


@pytest.mark.parametrize(("at", "write"), [("README.md", summary), ("docs/bench.md", page)])
def test_the_pages_show_the_committed_records(at: str, write: Callable[[list[Row]], str]) -> None:
    """Generated, never typed: run ``overflight bench table --into PAGE``, for the README with ``--summary``."""
    assert placed(ROOT / at) == write(read(RESULTS)).strip()


def test_the_summary_has_a_column_per_model(row: Callable[..., Row]) -> None:
    """The baseline has no ratio; who was not measured on a model leaves its cell empty."""
    text = summary([*contest(row, "a", 0.25), row("engine", "open_clip:fp32", [], run="a", reason="no", batch=1)])
    assert "| | m |" in text
    assert "| Overflight fp32 | 2.5 ms, 0.25 |" in text
    assert "| transformers + torch fp32 | 10 ms |" in text
    assert "open_clip" not in text
    with pytest.raises(UsageError, match="image tower"):
        summary([])


def test_plots_are_drawn_and_repeat_to_the_byte(row: Callable[..., Row], tmp_path: Path) -> None:
    """Latencies and growth; the same rows make the same file."""
    pytest.importorskip("matplotlib")
    from overflight.bench.plot import exponent, save

    grown = [row("match", "match and decide", [n * 1000] * 5, labels=n, run="g") for n in (10, 100, 1000)]
    rows = [*contest(row, "a", 0.25), *grown]
    first = {path.name: path.read_bytes() for path in save(rows, tmp_path / "one")}
    second = {path.name: path.read_bytes() for path in save(rows, tmp_path / "two")}
    assert set(first) == {"latency-m-engine.svg", "growth-labels.svg"}
    assert first == second
    assert exponent(grown, "labels") == pytest.approx(1.0)


def test_the_report_is_one_page(row: Callable[..., Row], tmp_path: Path) -> None:
    """Tables, plots and machines, and no text of a record can break out."""
    pytest.importorskip("matplotlib")
    from overflight.bench.report import write_report

    write_report(
        [*contest(row, "a", 0.25), row("engine", "x<script>", [], run="a", reason="<b>no", batch=1)],
        tmp_path / "r.html",
    )
    page = (tmp_path / "r.html").read_text()
    assert "<svg" in page
    assert "<script>" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
