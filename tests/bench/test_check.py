"""Checking: budgets on records, and a planted slow-down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from overflight.bench.check import check_functions, check_records, failures, read_budgets
from overflight.bench.row import Floor, Row
from overflight.bench.sample import SamplingPlan
from overflight.bench.spread import judge, ratio
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError

ROOT = Path(__file__).parents[2]
BUDGETS = """
[slower]
tolerance = 0.05
[[ratio]]
measure = "engine"
subject = "ours:fp32"
over = "transformers_torch:fp32"
median = 1.0
[[limit]]
measure = "match"
subject = "match and decide"
class = ""
when = { labels = 1000 }
median_ms = 0.2
"""

# What judges the clock proves nothing on a busy machine, and may fail there without cause.
needs_quiet = pytest.mark.skipif(
    "OVERFLIGHT_TIMING" not in os.environ, reason="times code: set OVERFLIGHT_TIMING=1 on a quiet machine"
)


def outcomes(rows: list[Row], folder: Path, text: str = BUDGETS) -> list[str]:
    (folder / "budgets.toml").write_text(text)
    return [finding.outcome for finding in check_records(rows, read_budgets(folder / "budgets.toml"))]


def test_a_record_within_its_budget_is_kept(row: Callable[..., Row], tmp_path: Path) -> None:
    """And one beyond it is missed; the newest counts."""
    theirs = row("engine", "transformers_torch:fp32", [200] * 10)
    fast, slow = row("engine", "ours:fp32", [100] * 10), row("engine", "ours:fp32", [300] * 10)
    match = row("match", "match and decide", [100_000] * 5, labels=1000)
    late = row("match", "match and decide", [300_000] * 5, labels=1000)
    assert outcomes([theirs, fast, match], tmp_path) == ["kept", "kept"]
    assert outcomes([theirs, slow, match, late], tmp_path) == ["missed", "missed"]
    assert outcomes([late, match], tmp_path)[1] == "kept"


def test_a_budget_without_a_record_says_so(row: Callable[..., Row], tmp_path: Path) -> None:
    """Other settings are another record."""
    other = row("match", "match and decide", [100_000] * 5, labels=10)
    assert outcomes([other], tmp_path) == ["not measured", "not measured"]


def test_a_ratio_is_missed_only_beyond_its_noise(row: Callable[..., Row], tmp_path: Path) -> None:
    """Where the range holds the bound nothing is proven either way, and it is not called kept."""
    theirs = row("engine", "transformers_torch:fp32", [100] * 30)
    near = row("engine", "ours:fp32", [98, 104] * 15)
    below = row("engine", "ours:fp32", [96, 102] * 15)
    assert outcomes([theirs, near], tmp_path)[0] == "within noise"
    assert outcomes([theirs, below], tmp_path)[0] == "within noise"


def test_a_goal_that_is_missed_does_not_fail(row: Callable[..., Row], tmp_path: Path) -> None:
    """It is said, and the check passes."""
    rows = [row("engine", "transformers_torch:fp32", [100] * 10), row("engine", "ours:fp32", [300] * 10)]
    text = BUDGETS.replace("median = 1.0", "median = 1.0\ngoal = true")
    assert outcomes(rows, tmp_path, text)[0] == "goal missed"
    assert not failures(check_records(rows, read_budgets(tmp_path / "budgets.toml")))


def test_a_word_that_is_no_budget_is_refused(tmp_path: Path) -> None:
    """A misspelt limit would never be missed."""
    (tmp_path / "budgets.toml").write_text(BUDGETS.replace("median_ms", "medain_ms"))
    with pytest.raises(UsageError, match="medain_ms"):
        read_budgets(tmp_path / "budgets.toml")


def test_our_own_budgets_can_be_read() -> None:
    """The shipped file."""
    assert read_budgets().limit


def plant(tree: Path, share: float) -> Path:
    """Copy what is measured and let every resize last ``share`` longer."""
    for room in ("src", "runtime", "jetson"):
        shutil.copytree(ROOT / room, tree / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    file = tree / "runtime" / "resize.py"
    planted = (
        "        import time\n        began = time.thread_time_ns()\n        _run(plan, pixels, out)\n"
        f"        until = time.thread_time_ns() + {share} * (time.thread_time_ns() - began)\n"
        "        while time.thread_time_ns() < until:\n            pass\n"
    )
    text = file.read_text()
    assert text.count("        _run(plan, pixels, out)\n") == 1
    file.write_text(text.replace("        _run(plan, pixels, out)\n", planted))
    return tree


@needs_quiet
@pytest.mark.slow
@pytest.mark.parametrize(("share", "expected"), [(0.15, {"faster"}), (0.03, {"same", "unclear"})])
def test_a_planted_slow_down_is_seen(share: float, expected: set[str], colour_bundle: Bundle, tmp_path: Path) -> None:
    """Against a tree whose resize lasts 15 % longer we are faster; 3 % is noise."""
    tree = plant(tmp_path / "tree", share)
    plan = SamplingPlan(300, 300, 0.0, settle_s=0.001)
    findings, rows = check_functions(colour_bundle.directory, str(tree), plan, read_budgets(), functions=("resize",))
    taken = {row.subject: row.samples for row in rows}
    assert judge(ratio(taken["resize here"], taken["resize there"]), 0.05) in expected
    assert [finding.what for finding in findings] == ["resize"]


def test_a_commit_that_is_not_here_is_said(colour_bundle: Bundle) -> None:
    """Used wrongly: one line."""
    with pytest.raises(UsageError, match="neither a folder nor a commit"):
        check_functions(colour_bundle.directory, "no-such-commit", SamplingPlan(), read_budgets())


def test_a_share_of_the_floor_is_asked_for(row: Callable[..., Row], tmp_path: Path) -> None:
    """Reached, or not."""
    floor = Floor({"fp32": 1000}, 10, {"fp32": 1.0}, 50.0, 0.5)
    rows = [row("engine", "ours:fp32", [100] * 5, floor=floor)]
    for least, expected in ((0.4, "kept"), (0.6, "missed")):
        text = (
            BUDGETS.partition("[[ratio]]")[0]
            + f'[[share]]\nmeasure = "engine"\nsubject = "ours:fp32"\nleast = {least}\n'
        )
        assert outcomes(rows, tmp_path, text) == [expected]


def starved(row: Row) -> Row:
    return msgspec.structs.replace(row, figures={**row.figures, "granted": 0.4})


def test_a_starved_subject_is_judged_by_nothing(row: Callable[..., Row], tmp_path: Path) -> None:
    """A ratio over a subject that did not get its threads is neither kept nor missed; an older sound one counts."""
    ours, theirs = row("engine", "ours:fp32", [1] * 10), row("engine", "transformers_torch:fp32", [200] * 10)
    match = row("match", "match and decide", [300_000] * 5, labels=1000)
    assert outcomes([ours, starved(theirs), starved(match)], tmp_path) == ["not judged", "not judged"]
    slow = row("engine", "ours:fp32", [300] * 10, run="old")
    old = [slow, row("engine", "transformers_torch:fp32", [200] * 10, run="old")]
    assert outcomes([*old, ours, starved(theirs)], tmp_path)[0] == "missed"


def test_a_share_above_its_floor_is_not_judged(row: Callable[..., Row], tmp_path: Path) -> None:
    """Nothing is faster than the floor: the peak was measured too low."""
    rows = [row("engine", "ours:fp32", [100] * 5, floor=Floor({"fp32": 1000}, 10, {"fp32": 1.0}, 109.0, 1.09))]
    text = BUDGETS.partition("[[ratio]]")[0] + '[[share]]\nmeasure = "engine"\nsubject = "ours:fp32"\nleast = 0.8\n'
    assert outcomes(rows, tmp_path, text) == ["not judged"]
