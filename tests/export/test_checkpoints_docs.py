"""docs/checkpoints.md names exactly the models that can be fetched, with their templates, and known architectures."""

from __future__ import annotations

import re
from pathlib import Path

from overflight.export.catalogue import read_catalogue
from overflight.export.layouts.open_clip_settings import read_architectures

DOCS = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()


def test_the_table_of_models_is_the_catalogue() -> None:
    """Every model has its row, with its templates and a licence that its entry begins with."""
    rows = dict(re.findall(r"`overflight fetch ([\w-]+)` \|[^|]*\| ([\w-]+) \|", DOCS))
    assert rows == {name: model.templates for name, model in read_catalogue().items()}


def test_every_architecture_in_the_text_is_known() -> None:
    """What --like is given in the documentation exists."""
    named = set(re.findall(r"--like ([\w-]+)", DOCS))
    assert named
    assert named <= read_architectures().keys()
