"""Times in every form of ISO 8601, and numbers as telemetry writes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.pose.fields import number, utc_ns

TEN_NS = 1_714_557_600_000_000_000  # 2024-05-01T10:00:00Z
FORMS = [
    "2024-05-01T10:00:00Z", "20240501T100000Z", "2024-W18-3T10:00:00Z", "2024W183T10Z", "2024-122T10:00Z",
    "2024122T1000Z", "2024-05-01 10:00:00", "2024-05-01t10:00:00z", "2024-05-01T12:00:00+02:00",
    "2024-05-01T12:00:00+0200", "2024-05-01T12:00:00+02", "2024-05-01T05:30:00-04:30", "2024-05-01T05:30:00\u221204:30",
    "2024-05-01T10:00:00,000Z", "2024-05-01T10,0Z", "2024-05-01T09:30.5Z|30", "2024-05-01T09:59:60Z",
    "2024-05-01T10:00:00 UTC", "+002024-05-01T10:00:00Z", "2024-5-1T10:00:00Z", "2024-05-01T10:00:00.5Z|-0.5",
    "2024-04-30T24:00:00Z|36000", "2024-05-01|36000", "2024-05|36000", "2024-05-01T10:00:00.123456789Z|-0.123456789",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_time_is_read(form: str) -> None:
    """Behind the bar: seconds from this time to ten o'clock."""
    text, _, before_s = form.partition("|")
    if text == "2024-05-01T09:30.5Z":
        before_s = str(29.5 * 60)
    assert utc_ns(text) + round(float(before_s or "0") * 1e9) == TEN_NS


@pytest.mark.parametrize(
    "text",
    ["", "x", "2024-13-01", "2024-02-30", "2023-366", "2024-05-01T25:00Z", "2024-05-01T10:61Z", "2024-05-01T24:00:01Z",
     "0000-00-00T00:00:00", "10:00:00", "1714557600", "2024-05-01T10:00:00+", "2024-05-01T10:00:00Z and more",
     "2024-W54-1"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    """Never a guess."""
    with pytest.raises(ValueError, match=r".+"):
        utc_ns(text)


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
def test_times_agree_with_the_standard_library(moment: datetime, offset_min: int) -> None:
    """Written by datetime with any offset, read to the microsecond."""
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    since = zoned - datetime(1970, 1, 1, tzinfo=timezone.utc)
    expected_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    assert utc_ns(zoned.isoformat()) == expected_ns


def test_fractions_are_numbers() -> None:
    """As Exif's rationals are copied into text; a division by 0 and NaN are not."""
    assert number("80100/1000") == 80.1
    for text in ("1/0", "nan", "inf", "1/2/3", ""):
        with pytest.raises(ValueError, match=r".+"):
            number(text)
