"""overflight export, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from overflight.export.commands.export import command
from overflight.runtime.errors import UsageError

Tiny = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_torch")


def test_the_parity_table_is_printed(tiny: Tiny, tmp_path: Path) -> None:
    """Both towers, the reference and how far they are from it."""
    done = CliRunner().invoke(command, [str(tiny("siglip")), str(tmp_path / "bundle")], catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("image", "text", "float64, numpy", "largest difference", "siglip, 30 px, 16 numbers"):
        assert word in done.output


def test_json_is_the_manifest(tiny: Tiny, tmp_path: Path) -> None:
    """Machines get the whole manifest on standard output, and nothing else."""
    done = CliRunner().invoke(
        command, [str(tiny("clip")), str(tmp_path / "bundle"), "--json", "--name", "ours"], catch_exceptions=False
    )
    printed = json.loads(done.stdout)
    assert printed["name"] == "ours"
    assert [row["tower"] for row in printed["parity"]] == ["image", "text"]
    assert printed["parity"][0]["max_abs"] < 1e-6


def test_a_taken_place_is_refused_before_any_download(tmp_path: Path) -> None:
    """An id that would take an hour to fetch is not fetched for nothing."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="exists but is not a bundle"):
        CliRunner().invoke(command, ["overflight/absent", str(tmp_path / "taken")], catch_exceptions=False)


def test_a_missing_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    """An empty directory."""
    with pytest.raises(UsageError, match="no checkpoint here"):
        CliRunner().invoke(command, [str(tmp_path), str(tmp_path / "bundle")], catch_exceptions=False)
