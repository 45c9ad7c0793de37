"""The page in a browser, briefly: every view opens in both languages without a complaint.

Covers: station/serve/assets
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.bundle import Bundle
    from overflight.station.archive import Archive

VIEWS = ("live", "search", "review", "upload", "teach", "map")


@pytest.mark.slow
def test_every_view_opens_without_a_complaint(
    archive: Archive, colour_bundle: Bundle, start_station: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    """One start of a browser: six views, one decision by keyboard, then Chinese."""
    station = start_station(archive.directory, "--bundle", colour_bundle.directory)
    page = open_page()
    for view in VIEWS:
        page.goto(f"{station}/#/{view}")
        page.wait_for_selector(f"main[data-ready={view}]")
    page.goto(f"{station}/#/review")
    page.wait_for_selector(".finding.current")
    page.keyboard.press("c")
    page.fill("#reviewer-name", "Ana")
    page.keyboard.press("Enter")
    page.wait_for_selector(".finding .state.confirmed")
    page.click("#language")
    page.wait_for_selector("text=审核")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
