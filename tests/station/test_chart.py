"""The report's drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.station.chart import COLUMNS, clock, colours, fold, histogram, three_digits, timeline
from overflight.station.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeFlight = Callable[..., Path]


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (4.56, "4.56"), (999.4, "999"), (999.6, "1000"), (3104, "3104")]
)
def test_latencies_are_written_without_powers_of_ten(value: float, text: str) -> None:
    """A busy machine's 3.1 s are 3104 ms, not 3.1e+03."""
    assert three_digits(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (7.44, "0:07.4"), (59.96, "1:00"), (61, "1:01"), (3599.6, "1:00:00"), (3725, "1:02:05")],
)
def test_clock(seconds: float, text: str) -> None:
    """Times are written as people read them; nothing rounds to 60 seconds."""
    assert clock(seconds) == text


def test_short_flight_is_not_folded(make_flight: MakeFlight) -> None:
    """Up to the number of columns every observation has its own."""
    columns = fold(summarise(make_flight(["meadow", None] * 50)))
    assert columns.rows.tolist() == list(range(100))
    assert columns.ends[-1] == pytest.approx(1)


def test_folding_keeps_the_foremost_answer_and_every_loss(make_flight: MakeFlight) -> None:
    """A column shows what held most of it, by its surest frame; lost frames add up to the same number."""
    answers = ["water" if frame % 10 == 0 else "meadow" for frame in range(9_000)]
    summary = summarise(make_flight(answers))
    summary.lost_before[::100] = 3
    columns = fold(summary)
    assert len(columns.rows) <= COLUMNS
    assert {answers[row] for row in columns.rows} == {"meadow"}
    assert columns.lost.sum() == summary.lost_before.sum()
    assert (np.diff(columns.starts) > 0).all()


def test_bands_cover_the_flight_once(make_flight: MakeFlight) -> None:
    """The bands lie side by side over the whole width, one for each unbroken answer, in its colour."""
    summary = summarise(make_flight(["meadow"] * 20 + [None] * 10 + ["water"] * 30))
    strip = timeline(summary, fold(summary)).find("div[@class='strip']")
    assert strip is not None
    styles = [dict(part.split(":") for part in band.attrib["style"].split(";")) for band in strip]
    widths = [float(style["width"].rstrip("%")) for style in styles]
    assert widths == pytest.approx([100 / 3, 100 / 6, 50], abs=0.01)
    assert [style["background"] for style in styles] == [colours(summary)[label] for label in ("meadow", None, "water")]


def test_gap_is_left_blank(make_flight: MakeFlight) -> None:
    """Where a recording was not observed for a while, the strip has a hole."""
    summary = summarise(make_flight(["meadow"] * 50))
    summary.times[25:] += 10
    strip = timeline(summary, fold(summary)).find("div[@class='strip']")
    assert strip is not None
    assert len(strip) == 2


@pytest.mark.parametrize("ages_ms", [[12.0], [5.0] * 10, [1.0] * 99 + [5000.0]])
def test_histogram_counts_everything(ages_ms: list[float]) -> None:
    """One age, equal ages, one outlier: there are bars, the tallest is full, and the percentiles are named."""
    drawing = histogram(np.array(ages_ms))
    heights = [float(bar.attrib["height"]) for bar in drawing.iter("rect")]
    assert max(heights) == 100
    assert len(list(drawing.iter("b"))) == 3


def test_the_name_of_a_latency_stays_on_a_phone() -> None:
    """Right of its line it needs a third of the width, so a line further right has it on its left."""
    drawing = histogram(np.array([1.0] * 90 + [850.0] * 6 + [1000.0] * 5))
    marks = [one for one in drawing.iter("b") if float(one.attrib["style"][5:-1]) > 66]
    assert marks
    assert all(one.attrib["class"] == "mark late" for one in marks)
