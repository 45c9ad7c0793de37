"""The coverage of one flight in its report.

Covers: station/coverage_chapter.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from overflight.runtime.pose.footprint import Place
from overflight.station.report import make_report
from overflight.station.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.records import Observation

SIDE_DEG = 0.001  # 111.32 m on the equator


def placed(seen: Observation) -> Observation:
    """Place four frames: a square twice, its eastern neighbour once, and one frame without a footprint."""
    west = 0.0 if seen.frame < 2 else SIDE_DEG
    ring = ((west, 0.0), (west + SIDE_DEG, 0.0), (west + SIDE_DEG, SIDE_DEG), (west, SIDE_DEG))
    place = Place(SIDE_DEG / 2, west + SIDE_DEG / 2, 5.0, ring if seen.frame < 3 else (), gsd_m=0.05)
    return msgspec.structs.replace(seen, place=place)


def test_the_report_says_how_much_ground_was_shown(make_flight: Callable[..., Path]) -> None:
    """The union, how often, how finely, and what it is not."""
    pytest.importorskip("shapely")
    page = make_report(summarise(make_flight(["water"] * 4, placed))).decode()
    assert "24,784 m² of ground shown by 3 footprints; frames without one: 1." in page
    assert "Ground sample distance 0.05 m" in page
    for words in ("once", "twice"):
        assert f'<th scope="row">{words}</th><td class="number">50%</td>' in page
    assert "not a probability of detection" in page


def test_a_flight_without_footprints_has_no_coverage(make_flight: Callable[..., Path]) -> None:
    """Nothing is claimed."""
    assert "Coverage" not in make_report(summarise(make_flight(["water"] * 4))).decode()
