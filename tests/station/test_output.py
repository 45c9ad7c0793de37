"""The files that a command is asked to write are checked before its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from overflight.runtime.errors import UsageError
from overflight.station.output import check_outputs


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.pdf", "ends in '.pdf'; expected one of .json, .csv"),
        ("x", "ends in ''"),
        ("deep/x.json", "its folder does not exist"),
        ("folder.json", "a folder; expected the name of a file"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused(name: str, words: str, tmp_path: Path) -> None:
    """In the words of the user's own path."""
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UsageError, match=words):
        check_outputs([tmp_path / name], (".json", ".csv"))


def test_other_names_pass(tmp_path: Path) -> None:
    """Capitals, a file that exists, an option that was not given; any ending where none is named."""
    (tmp_path / "kept.csv").touch()
    check_outputs([tmp_path / "x.JSON", tmp_path / "kept.csv", None], (".json", ".csv"))
    check_outputs([tmp_path / "x.anything"])
