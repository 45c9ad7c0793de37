"""A station with a small archive, and a browser whose every complaint fails the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
HOME = ("127.0.0.1", "localhost")
WAIT_MS = 240_000  # the first search of an archive takes a minute on a busy machine; nothing is timed by this


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def start_station() -> Iterator[Callable[..., str]]:
    """Return a function that starts ``overflight serve`` and returns its address; all end with the session."""
    pytest.importorskip("starlette")
    pytest.importorskip("overflight.station.serve.app")
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> str:
        port = free_port()
        command = [sys.executable, "-m", "overflight", "serve", *map(str, arguments), "--port", str(port)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ)))
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/healthz", running[-1])
        return address

    yield start
    for one in running:
        one.terminate()
        one.wait(timeout=20)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        assert process.poll() is None, "the station ended"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail("the station did not answer within a minute")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return the system's Chromium under Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page; errors of the console and requests to other machines fail the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_one(width: int = 1440, language: str = "en-GB", **more: Any) -> Any:
        height = 900 if width > 500 else 844
        context = browser.new_context(viewport={"width": width, "height": height}, locale=language, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda one: complaints.append(one.text) if one.type in {"error", "warning"} else None)
        page.on("pageerror", lambda one: complaints.append(str(one)))
        page.on("request", lambda one: None if _own(one.url) else complaints.append(f"foreign request {one.url}"))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def _own(address: str) -> bool:
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    return parts.scheme in {"blob", "data"} or parts.hostname in HOME
