"""Comparisons of two runs of one command: whether their ratios agree within their confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.bench.spread import Ratio, ratio
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.bench.row import Row


class Comparison(msgspec.Struct, frozen=True):
    """The ratio of one subject to the baseline, in both runs."""

    subject: str
    over: str
    first: Ratio
    second: Ratio

    @property
    def agrees(self) -> bool:
        """Whether the intervals overlap."""
        return self.first.low <= self.second.high and self.second.low <= self.first.high


def ratios(rows: Sequence[Row], over: str | None = None) -> dict[str, tuple[str, Ratio]]:
    """Return each subject's ratio to ``over`` (a run's first subject when None), for rows of one run."""
    able = [row for row in rows if row.samples and not row.starved]
    if not able:
        reasons = {row.starved or row.reason for row in rows} or {"it has no rows"}
        raise UsageError(f"no subject of this run can be compared ({'; '.join(sorted(reasons))}); measure again")
    over = over or able[0].title
    baseline = next((row for row in able if over in (row.title, row.subject)), None)
    if baseline is None:
        raise UsageError(f"no subject {over} in this run; it has {', '.join(row.title for row in able) or 'none'}")
    return {row.title: (baseline.title, ratio(row.samples, baseline.samples)) for row in able if row is not baseline}


def last_run(rows: Sequence[Row], measure: str | None = None) -> list[Row]:
    """Return the rows of the newest run (of one measure), in their order."""
    kept = [row for row in rows if measure in (None, row.measure)]
    return [row for row in kept if row.run == kept[-1].run] if kept else []


def compare(first: Sequence[Row], second: Sequence[Row], over: str | None = None) -> list[Comparison]:
    """Compare the newest runs of two record files, subject by subject."""
    one, two = ratios(last_run(first), over), ratios(last_run(second), over)
    both = [subject for subject in one if subject in two]
    if not both:
        raise UsageError(f"nothing in common: {', '.join(one)} against {', '.join(two)}; give two runs of one command")
    return [Comparison(subject, one[subject][0], one[subject][1], two[subject][1]) for subject in both]
