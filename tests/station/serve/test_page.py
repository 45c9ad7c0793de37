"""The page in a browser, briefly: every view opens in both languages without a complaint.

Covers: station/serve/assets
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from overflight.runtime.event import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@pytest.mark.slow
def test_pages_of_a_search_stay_together(
    fly_over: Callable[..., Path],
    colour_bundle: Bundle,
    start_station: Callable[..., str],
    open_page: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Immich 23883, 22508: what the second page added is there after the view was changed to the map and back."""
    from overflight.station.archive import Archive

    archive = Archive(tmp_path / "archive")
    archive.add(fly_over("many", [(250 - n, 30 + n, 30) for n in range(57)]))
    page = open_page()
    page.goto(f"{start_station(archive.directory, '--bundle', colour_bundle.directory)}/#/search?like=1")
    page.click("#next-page")
    page.wait_for_selector(".card >> nth=56")
    page.click("[data-show=map]")
    page.wait_for_selector(".results-map")
    page.click("[data-show=wall]")
    page.wait_for_selector(".wall .card")
    assert page.locator(".wall .card").count() == 57
    assert page.locator("#next-page").count() == 0


@pytest.mark.slow
def test_the_live_view_connects_again_after_an_error_of_a_proxy(
    fly_over: Callable[..., Path], start_station: Callable[..., str], browser: Any
) -> None:
    """Frigate 5000: after a proxy had answered 502 the page never connected again, and looked as if it had."""
    station = start_station("--flights", fly_over("now", [(250, 30, 30)] * 6))
    page = browser.new_page()
    page.goto(f"{station}/#/map")
    page.wait_for_selector("main[data-ready=map]")
    failing = [True]
    page.route("**/api/live", lambda route: route.fulfill(status=502) if failing[0] else route.continue_())
    with page.expect_response("**/api/live"):
        page.goto(f"{station}/#/live")
    page.wait_for_selector("text=connection to the station is lost")
    failing[0] = False
    page.wait_for_selector(".live-picture img[src]", timeout=60_000)
    page.close()


@pytest.mark.slow
def test_an_event_that_ends_is_shown_as_over(
    fly_over: Callable[..., Path], start_station: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    """A row of the list changes although no event was added to it."""
    flight = fly_over("now", [(250, 30, 30)] * 6)
    journal = flight / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("DELETE FROM events WHERE type = 'end'")
    page = open_page()
    page.goto(f"{start_station('--flights', flight)}/#/live")
    page.wait_for_selector("text=still there")
    with closing(sqlite3.connect(journal)) as connection, connection:
        (record,) = connection.execute("SELECT record FROM events WHERE type = 'begin'").fetchone()
        event = msgspec.structs.replace(msgspec.json.decode(record, type=Event), type="end", sequence=1)
        connection.execute(
            "INSERT INTO events (event, type, frame, record) VALUES (?, 'end', ?, ?)",
            (event.id, event.frame, msgspec.json.encode(event)),
        )
    page.wait_for_selector(".events >> text=over", timeout=10_000)
