"""Time series: one ground at three dates or more, what changed between which of them, and a curve for each label."""
