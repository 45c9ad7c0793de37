"""Two flights over one ground, and the report's chapters about them.

Covers: station/changes/flights.py station/report_chapters.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.station.changes.flights import compare_flights

RED, GREEN = (250, 30, 30), (30, 250, 30)


@pytest.fixture
def pair(fly_over: Callable[..., Path], placed: Callable[..., Path]) -> tuple[Path, Path]:
    """Return two flights over twelve places, of which the fifth turned from red to green."""
    colours = [RED] * 12
    first = placed(fly_over("first", colours))
    return first, placed(fly_over("second", [*colours[:4], GREEN, *colours[5:]]))


def test_flights_are_joined_by_their_footprints(
    pair: tuple[Path, Path], colour_bundle: Bundle, colour_bank: LabelBank
) -> None:
    changes = compare_flights(*pair, colour_bank, colour_bundle.manifest)
    assert [number for number, tile in enumerate(changes.tiles) if tile.changed] == [4]
    assert changes.flips == (("red", "green", 1),)
    assert changes.registration.state == "footprints"
    assert changes.registration.error_m == pytest.approx(3 * 2**0.5, abs=0.01)


def test_a_flight_and_its_own_copy_show_no_change(
    fly_over: Callable[..., Path], placed: Callable[..., Path], colour_bundle: Bundle, colour_bank: LabelBank
) -> None:
    """Rounding to 16 bits is no change, though the pair itself has no other spread to set a limit by."""
    one, two = (placed(fly_over(name, [RED] * 6 + [GREEN] * 6)) for name in ("first", "second"))
    assert compare_flights(one, two, colour_bank, colour_bundle.manifest).changed_tiles == 0


def test_flights_over_other_ground_are_refused(
    fly_over: Callable[..., Path], placed: Callable[..., Path], colour_bundle: Bundle, colour_bank: LabelBank
) -> None:
    first, second = placed(fly_over("first", [RED])), placed(fly_over("second", [RED]), lon_deg=9.0)
    with pytest.raises(UsageError, match="overlaps"):
        compare_flights(first, second, colour_bank, colour_bundle.manifest)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_takes_up_description_findings_and_changes(
    pair: tuple[Path, Path], colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, language: Any
) -> None:
    from overflight.station.archive import Archive
    from overflight.station.commands.report import command
    from overflight.station.review import finding_number, mark

    colour_bank.save(tmp_path / "bank.safetensors")
    archive = Archive(tmp_path / "archive")
    kept, _ = archive.add(pair[1])
    mark(archive, finding_number(kept.id, 4), "confirmed", "ada", comment="a <green> field")
    given = [str(pair[1]), "-o", str(tmp_path / "r.html"), "--describe", "--archive", str(archive.directory)]
    given += ["--against", str(pair[0]), "--labels", str(tmp_path / "bank.safetensors")]
    done = CliRunner().invoke(
        command, [*given, "--bundle", str(colour_bundle.directory), "--language", language], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text()
    wanted = {
        "en": ("Description", "confirmed", "red became green", "Findings"),
        "zh": ("结构化描述", "已确认", "变为", "发现与复核"),
    }
    assert all(text in page for text in wanted[language])
    assert "a &lt;green&gt; field" in page
    assert "https:" not in page


def test_a_flight_outside_the_archive_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from overflight.station.archive import Archive
    from overflight.station.report_chapters import findings_chapter

    archive = Archive(tmp_path / "archive")
    archive.add(pair[0])
    with pytest.raises(UsageError, match="archive add"):
        findings_chapter(pair[1], archive.directory, "en")
