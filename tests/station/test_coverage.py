"""Coverage: areas, gaps, holes and cells, compared with figures that can be worked out by hand.

Covers: station/commands/coverage.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.pose.footprint import Place
from overflight.station import coverage

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("shapely")
STEP = 100 / coverage.DEGREE_M  # a hundred metres at the equator


def square(x: int, y: int, gsd_m: float = 0.05) -> Place:
    ring = ((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1))
    return Place((y + 0.5) * STEP, (x + 0.5) * STEP, 2.0, tuple((lon * STEP, lat * STEP) for lon, lat in ring), gsd_m)


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace reading: eight squares around a hole, and one of them shown twice, finer."""
    places = [square(x, y) for x in range(3) for y in range(3) if (x, y) != (1, 1)] + [square(0, 0, 0.02)]
    monkeypatch.setattr(coverage, "_places", lambda flights: (places, 4))


@pytest.mark.usefixtures("covered")
def test_the_union_keeps_its_hole() -> None:
    """Eight of nine squares of 100 m: 80,000 m², also after the hole was cut into pieces for the map."""
    found = coverage.cover([])
    assert found.covered_m2 == pytest.approx(80_000, rel=1e-3)
    assert (found.frames, found.without_place) == (9, 4)
    shapely = coverage._shapely()
    pieces = [shapely.Polygon(feature.geometry.parts[0]) for feature in found.layers[0].features]
    area = sum(piece.area for piece in pieces) * coverage.DEGREE_M**2
    assert area == pytest.approx(80_000, rel=1e-3)


@pytest.mark.usefixtures("covered")
def test_gaps_are_what_of_the_area_was_not_shown() -> None:
    """The hole, and a strip to the east."""
    area = ((0.0, 0.0), (4 * STEP, 0.0), (4 * STEP, 3 * STEP), (0.0, 3 * STEP))
    found = coverage.cover([], area=area)
    assert found.area_m2 == pytest.approx(120_000, rel=1e-3)
    assert found.gaps_m2 == pytest.approx(40_000, rel=1e-3)
    assert [layer.name for layer in found.layers] == ["covered", "gaps", "cells"]


@pytest.mark.usefixtures("covered")
def test_cells_count_looks_and_the_finest_of_them() -> None:
    """The corner that was shown twice has two looks and the finer ground sample distance."""
    cells = coverage.cover([], cell_m=100.0).layers[-1].features
    assert len(cells) == 8
    twice = [cell.properties for cell in cells if cell.properties["looks"] == 2]
    assert twice == [{"looks": 2, "gsd_m": 0.02}]


def test_flights_without_footprints_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No places, no map."""
    monkeypatch.setattr(coverage, "_places", lambda flights: ([], 12))
    with pytest.raises(UsageError, match="none of 12 frames"):
        coverage.cover([])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"type":"Point","coordinates":[1,2]}', '{"type":"Polygon","coordinates":[[[1,2]]]}']
)
def test_what_is_no_polygon_is_refused(tmp_path: Path, text: str) -> None:
    """One line, whatever the file holds."""
    (tmp_path / "area.geojson").write_text(text)
    with pytest.raises(UsageError, match="not a polygon"):
        coverage.read_area(tmp_path / "area.geojson")
