"""The label files that come with the package, and warnings of labels that are too coarse.

Covers: export/shipped_labels.py export/coarse.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.export.coarse import coarse_warnings, finer_forms
from overflight.export.label_file import parse_text, read_label_file
from overflight.export.prompts import read_templates
from overflight.export.shipped_labels import find_labels, purpose, shipped_names, shipped_path
from overflight.runtime.errors import UsageError

USES = frozenset(
    (
        *("description", "eight", "land-use", "flood", "wildfire"),
        *("crops", "ecosystems", "urban-growth", "infrastructure", "search-and-rescue"),
    )
)
AERIAL = read_templates("aerial")


def test_every_use_has_a_file() -> None:
    assert frozenset(shipped_names()) == USES


@pytest.mark.parametrize("name", sorted(USES))
def test_a_shipped_file_is_whole(name: str) -> None:
    """It is read without a mistake, has groups and background, and none of its labels is too coarse."""
    file = read_label_file(shipped_path(name), AERIAL)
    assert {entry.group for entry in file.entries if not entry.background}
    assert any(entry.background for entry in file.entries)
    assert coarse_warnings(file) == []
    assert len(purpose(name)) > 20


def test_eight_labels_are_two_of_four_kinds() -> None:
    file = read_label_file(shipped_path("eight"), AERIAL)
    kinds = [entry.group for entry in file.entries if not entry.background]
    assert sorted(kinds, key=str) == sorted(["space", "objects", "state", "time"] * 2)


@pytest.mark.parametrize("text", ["building", "Water", "the building", "建筑", "a tree."])
def test_coarse_labels_are_named_with_finer_ones(text: str) -> None:
    (warning,) = coarse_warnings(parse_text(text, AERIAL, "labels.txt", "labels"))
    assert "coarse" in warning
    assert finer_forms(text)[0] in warning


@pytest.mark.parametrize("text", ["river", "parked cars", "flooded buildings"])
def test_fine_labels_pass(text: str) -> None:
    assert coarse_warnings(parse_text(text, AERIAL, "labels.txt", "labels")) == []


def test_a_file_comes_before_a_shipped_name(tmp_path: Path) -> None:
    assert find_labels(Path("flood")) == shipped_path("flood")
    assert find_labels(tmp_path / "flood.toml") == tmp_path / "flood.toml"
    with pytest.raises(UsageError, match="there are crops"):
        find_labels(Path("nothing-such"))
