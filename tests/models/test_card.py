"""The card: its tables are the measured results, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overflight.models import card

MODELS = Path(__file__).parents[2] / "models"


def test_the_card_shows_its_results() -> None:
    """Rendering it again changes nothing."""
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    results = json.loads((MODELS / "results.json").read_text(encoding="utf-8"))
    assert card.render(text, results) == text


def test_a_changed_result_changes_the_card() -> None:
    """And a card without a mark is refused, by the mark's name."""
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    results = json.loads((MODELS / "results.json").read_text(encoding="utf-8"))
    results["open_set"]["auroc_best_cosine"] = 0.123
    assert "**0.123**" in card.render(text, results)
    with pytest.raises(ValueError, match="robustness"):
        card.render(text.replace("<!-- robustness:begin -->", ""), results)
