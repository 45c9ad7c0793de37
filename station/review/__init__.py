"""Review: what people decided about findings, kept so that several reviewers can work apart and merge."""

from overflight.station.review.store import (
    STATES,
    Finding,
    Review,
    finding_number,
    findings,
    mark,
    merge,
    reviewed_rows,
)

__all__ = ["STATES", "Finding", "Review", "finding_number", "findings", "mark", "merge", "reviewed_rows"]
