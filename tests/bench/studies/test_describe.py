"""The study of descriptions: what a person accepts is named as the label file names it.

Covers: bench/studies/describe.py
"""

from __future__ import annotations

from pathlib import Path

from overflight.bench.studies.describe import ACCEPTED

LABELS = Path(__file__).parents[3] / "export" / "label_files" / "description.toml"


def test_every_accepted_value_is_a_label() -> None:
    """A label that was renamed would count each of its right answers as wrong."""
    text = LABELS.read_text(encoding="utf-8")
    missing = {value for values in ACCEPTED.values() for value in values if f'"{value}"' not in text}
    assert not missing
    assert len(ACCEPTED) == 30
