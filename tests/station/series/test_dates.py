"""Dates of sources, and their order.

Covers: station/series/dates.py
"""

from __future__ import annotations

import pytest

from overflight.runtime.errors import UsageError
from overflight.station.series.dates import date_in_name, order, read_date


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("site-2024-05-17", "2024-05-17"),
        ("ortho_20240517", "2024-05-17"),
        ("DJI_20240517103045_0001_D", "2024-05-17T10:30:45Z"),
        ("2024.05_field", "2024-05"),
        ("2019_YELL_2_528000_4978000_image", "2019"),
        ("S2_20240517T103021_T32", "2024-05-17T10:30:21Z"),
        ("2023-06-14-00_00_2023-06-14-23_59_Sentinel-2_L2A_B02_(Raw)", "2023-06-14"),
        ("composite_2024-05-01_2024-05-31", "2024-05"),
    ],
)
def test_a_date_is_read_from_a_name(name: str, text: str) -> None:
    found = date_in_name(name)
    assert found is not None
    assert (found.text, found.origin) == (text, "name")


@pytest.mark.parametrize(
    "name", ["ortho", "DJI_0018", "tile_2048", "LE07_L1TP_015053_20130107_20200908_02_T1", "crs32611_1234567890"]
)
def test_a_name_without_one_date_has_none(name: str) -> None:
    """A Landsat name has the dates of the picture and of its processing; 2048 is a size, and lies in the future."""
    assert date_in_name(name) is None


def test_the_31st_of_february_is_no_day() -> None:
    with pytest.raises(UsageError, match="--date 2024-02-31"):
        read_date("2024-02-31")


def test_sources_are_ordered_by_their_dates() -> None:
    assert order("abc", [read_date("2024-05-17"), read_date("2023"), read_date("2024-06")]) == [1, 0, 2]


@pytest.mark.parametrize("texts", [("2024", "2024-05-17"), ("2024-05", "2024-05"), ("2024-05-17T10:30", "2024-05-17")])
def test_dates_that_overlap_are_refused(texts: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="cannot be ordered"):
        order(("a", "b"), [read_date(text) for text in texts])


def test_a_source_without_a_date_is_named() -> None:
    with pytest.raises(UsageError, match="b: no date"):
        order(("a", "b"), [read_date("2024"), None])


@pytest.mark.parametrize("text", ["yesterday", "05/17/2024", "2024-13", "20", ""])
def test_other_dates_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--date"):
        read_date(text)
