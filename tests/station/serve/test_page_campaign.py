"""Every function of the page in a browser, at two widths and in two languages, on the demo's stills and a live flight.

``pytest -s -m campaign tests/station/serve/test_page_campaign.py`` takes about ten minutes on two cores. It needs
chromium, and from PyPI playwright and axe-playwright-python (which carries axe-core).

Covers: station/serve/assets
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.campaign
STILLS = Path(__file__).parents[3] / "station" / "demo" / "brighton"
VIEWS = ("live", "search", "review", "upload", "teach", "map")
FINDINGS = 10_000


def overflight(*arguments: str | Path) -> None:
    """Run one command to its end."""
    subprocess.run([sys.executable, "-m", "overflight", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of the demo's stills, with tiles."""
    archive = tmp_path_factory.mktemp("made") / "archive"
    overflight("archive", "add", archive, STILLS, "--tiles", "2x2")
    return archive


@dataclass
class Running:
    """A flight that runs, with the address of its health link."""

    process: subprocess.Popen[bytes]
    address: str

    def end(self) -> None:
        """Stop it and wait."""
        self.process.terminate()
        self.process.wait(timeout=120)


def start_flight(out: Path, *more: str) -> Running:
    """Start a flight over the test card and wait for its first observation."""
    from socket import socket

    with socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "overflight", "run", "test://", "--out", str(out), "--health", str(port)]
    process = subprocess.Popen([*command, "--fps", "2", *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running = Running(process, f"http://127.0.0.1:{port}")
    until_s = time.monotonic() + 240
    while time.monotonic() < until_s:
        assert process.poll() is None, "the flight ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{running.address}/ready", timeout=10):
            return running
        time.sleep(0.2)
    running.end()
    pytest.fail("no observation within four minutes")


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Return the folder of a flight that runs, and the address of its health link."""
    out = tmp_path_factory.mktemp("flights") / "first"
    running = start_flight(out)
    yield out.parent, running.address
    running.end()


@pytest.fixture(scope="module")
def station(made_archive: Path, flight: tuple[Path, str], start_station: Callable[..., str]) -> str:
    """Return the address of a station with the archive and the flight."""
    return start_station(made_archive, "--flights", flight[0], "--aircraft", flight[1])


def check_axe(page: Any, where: str) -> None:
    """Fail on anything that axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python")
    script = (resources.files(axe) / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    said = [f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0]['failureSummary']}" for one in found]
    assert said == [], where


def until(page: Any, expression: str, arg: Any = None, timeout: float = 240_000) -> None:
    """Wait until an expression holds. Playwright's own wait needs eval, which the page's policy forbids."""
    until_s = time.monotonic() + timeout / 1000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < until_s, f"never true: {expression}"
        time.sleep(0.05)


def open_view(page: Any, station: str, address: str) -> None:
    """Open a view and wait until it is ready."""
    page.goto("about:blank")
    page.goto(f"{station}/#/{address}")
    page.wait_for_selector(f"main[data-ready={address.partition('?')[0]}]")


def name_reviewer(page: Any, name: str) -> None:
    """Answer the question who reviews, beforehand."""
    page.evaluate("name => localStorage.setItem('reviewer', name)", name)


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_function_works_at_this_width_in_this_language(
    station: str, open_page: Callable[..., Any], tmp_path: Path, width: int, language: str
) -> None:
    """Live, search, one picture, review, upload, teach and map, each with axe-core."""
    page = open_page(width, language, accept_downloads=True)
    page.goto(station)
    name_reviewer(page, "Ana")
    for function in (drive_live, drive_search, drive_picture, drive_review, drive_upload, drive_teach, drive_map):
        started_s = time.monotonic()
        function(page, station, tmp_path)
        print(f"{width} {language} {function.__name__} {time.monotonic() - started_s:.1f} s")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{function.__name__} is too wide"


def drive_live(page: Any, station: str, _: Path) -> None:
    """The newest frame, its label and age, and the map."""
    open_view(page, station, "live")
    page.wait_for_selector(".live-picture img[src]")
    until(page, "document.querySelector('.live-picture img').naturalWidth > 0")
    frame = page.inner_text(".live-facts dd >> nth=0")
    until(page, "before => document.querySelector('.live-facts dd').textContent !== before", arg=frame)
    address = page.get_attribute(".live-picture img", "src")
    until(page, "before => document.querySelector('.live-picture img').getAttribute('src') !== before", arg=address)
    assert re.search(r"\d", page.inner_text(".live-age"))
    page.wait_for_selector(".live-map .graticule", state="attached")
    check_axe(page, "live")


def drive_search(page: Any, station: str, folder: Path) -> None:
    """Sentences, minus terms, a picture, filters, the map, "not found" and the best anyway."""
    open_view(page, station, "search")
    page.fill("#query", "a beach")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer h2")
    page.fill("#unwanted", "trees")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.chips .chip').length === 2")
    page.set_input_files("#search-picture", str(STILLS / "DJI_0020.JPG"))
    until(page, "document.querySelectorAll('.chips .chip').length === 3")
    page.wait_for_selector(".card img")
    page.click(".filters summary")
    page.select_option("[data-filter=kind]", "frames")
    page.fill("[data-filter=height]", "1, 9000")
    check_axe(page, "filters")
    page.click(".search-line .button.main")
    page.wait_for_selector(".card")
    check_axe(page, "wall")
    page.click("[data-show=map]")
    page.wait_for_selector(".results-map path.hit", state="attached")
    check_axe(page, "results on the map")
    open_view(page, station, "search?text=a+violin&text=a+submarine")
    page.wait_for_selector(".answer .missing")
    check_axe(page, "not found")
    page.click("#rank")
    page.wait_for_selector(".card")


def drive_picture(page: Any, station: str, folder: Path) -> None:
    """Neighbours, the same ground, the original, a decision, and a search for a marked part."""
    open_view(page, station, "search?text=a+road")
    if page.query_selector("#rank"):
        page.click("#rank")
    page.click(".card-open >> nth=0")
    page.wait_for_selector(".facts")
    page.wait_for_selector(".detail .strip-item")
    assert page.request.get(station + page.get_attribute("#original", "href")).headers["content-type"] == "image/jpeg"
    page.click(".detail [data-decide=confirmed]")
    page.wait_for_selector(".detail [data-decide=confirmed][aria-pressed=true]")
    check_axe(page, "one picture")
    page.click("#search-part")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    check_axe(page, "a marked part")
    page.click("#search-part")
    until(page, "location.hash.includes('region=')")
    page.wait_for_selector(".card")


def drive_review(page: Any, station: str, folder: Path) -> None:
    """Decisions by keyboard, a comment, the keys, the filter, and every file type."""
    open_view(page, station, "review")
    page.wait_for_selector(".finding.current")
    number = page.inner_text(".finding.current b")
    page.keyboard.press("j")
    until(page, "before => document.querySelector('.finding.current b').textContent !== before", arg=number)
    page.keyboard.press("k")
    until(page, "before => document.querySelector('.finding.current b').textContent === before", arg=number)
    page.keyboard.press("n")
    page.keyboard.type("<img src=x onerror=alert(1)> next to the path")
    page.keyboard.press("Enter")
    page.wait_for_selector(".opinions >> text=next to the path")
    for key, state in (("c", "confirmed"), ("r", "rejected"), ("u", "unsure")):
        current = page.inner_text(".finding.current b")
        page.keyboard.press(key)
        page.wait_for_selector(f".finding:has-text('{current}') .state.{state}")
    page.keyboard.press("x")
    page.wait_for_selector(".review-bar:not([hidden])")
    check_axe(page, "review")
    for kind in ("kmz", "html", "gpkg", "geojson", "csv"):
        page.select_option("#format", kind)
        with page.expect_download() as waiting:
            page.click("#export")
        assert Path(waiting.value.path()).stat().st_size > 100, kind
    page.keyboard.press("?")
    page.wait_for_selector("dialog .keys")
    check_axe(page, "keys")
    page.keyboard.press("Escape")
    page.select_option(".review-filters select >> nth=1", "rejected")
    until(
        page, "[...document.querySelectorAll('.finding:not([hidden]) .state')].every(one => one.matches('.rejected'))"
    )
    page.click("#share")
    with page.expect_download():
        page.click("#give")
    check_axe(page, "hand over")


def drive_upload(page: Any, station: str, folder: Path) -> None:
    """A bank, own labels, sentences, a TIFF that is cut into tiles, and the features."""
    tifffile = pytest.importorskip("tifffile")
    large = folder / "large.tif"
    tifffile.imwrite(large, np.random.default_rng(1).integers(0, 255, (3000, 5000, 3), np.uint8), tile=(256, 256))
    open_view(page, station, "upload")
    check_axe(page, "upload")
    page.set_input_files("#pictures", [str(STILLS / "DJI_0018.JPG"), str(large)])
    page.click("#classify")
    until(page, "document.querySelectorAll('.upload-card .scores li').length > 2")
    until(page, "document.querySelectorAll('.upload-card .scores').length === 2")
    for way, texts in (("labels", "a road\na forest"), ("sentences", "trees seen from above; a red car")):
        page.click(f"[data-way={way}]")
        page.fill("#texts", texts)
        page.click("#classify")
        until(page, "document.querySelectorAll('.upload-card .scores').length === 2")
    check_axe(page, "classified")
    for format_ in ("npz", "json"):
        with page.expect_download(timeout=180_000) as waiting:
            page.click(f"#features-{format_}")
        content = Path(waiting.value.path()).read_bytes()
        if format_ == "npz":
            assert len(np.load(io.BytesIO(content), allow_pickle=False).files) >= 1
        else:
            json.loads(content)


def choose_examples(page: Any, station: str, more: int = 6, less: int = 6) -> None:
    """Choose pictures on the teaching view until the label is fitted."""
    open_view(page, station, "teach")
    page.evaluate("sessionStorage.removeItem('choices')")
    open_view(page, station, "teach")
    page.fill("#teach-query", "trees")
    page.keyboard.press("Enter")
    page.wait_for_selector(".teach-found .card")
    count = page.evaluate("document.querySelectorAll('.teach-found .card').length")
    for at in range(more):
        page.click(f".teach-found .card >> nth={at} >> .card-actions button >> nth=0")
    for at in range(less):
        page.click(f".teach-found .card >> nth={count - 1 - at} >> .card-actions button >> nth=1")
    page.wait_for_selector(".teach-figure")


def drive_teach(page: Any, station: str, folder: Path) -> None:
    """Ten choices, the figures, the threshold, the preview, and a bank to take away."""
    choose_examples(page, station)
    page.wait_for_selector(".chart-threshold", state="attached")
    before = page.inner_text(".teach-alarms")
    page.evaluate(
        "const one = document.querySelector('#threshold'); one.value = one.min; one.dispatchEvent(new Event('input'))"
    )
    until(page, "before => document.querySelector('.teach-alarms').innerText !== before", arg=before)
    page.fill("#label-name", "wooded <b>bank</b>")
    page.click("#save-label")
    page.wait_for_selector(".teach-result a[download]")
    address = page.get_attribute(".teach-result a[download]", "href")
    assert len(page.request.get(station + address).body()) > 1000
    check_axe(page, "teach")


def drive_map(page: Any, station: str, folder: Path) -> None:
    """Footprints, pictures on the ground, the layers, and the user's own tiles, which are remembered."""
    tiles = write_mbtiles(folder / "region.mbtiles")
    open_view(page, station, "map")
    page.wait_for_selector("path.footprint", state="attached")
    page.wait_for_selector("path.land", state="attached")
    page.wait_for_selector("img.ground-picture", state="attached")
    if page.is_visible(".map-toggle"):
        page.click(".map-toggle")
    page.uncheck("[data-layer=footprints]")
    page.wait_for_selector("path.footprint", state="detached")
    page.check("[data-layer=footprints]")
    page.check("[data-layer=findings]")
    check_axe(page, "map")
    page.fill("#tiles-path", str(tiles))
    page.click(".map-panel form button")
    page.wait_for_selector("img.leaflet-tile-loaded", state="attached")
    open_view(page, station, "map")
    page.wait_for_selector("img.leaflet-tile-loaded", state="attached")
    page.evaluate("localStorage.setItem('tiles', '')")


def write_mbtiles(path: Path) -> Path:
    """Write raster tiles of one colour for the whole world at zoom 0."""
    import cv2

    _, png = cv2.imencode(".png", np.full((256, 256, 3), 200, np.uint8))
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE metadata (name TEXT, value TEXT);"
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);"
        )
        values = [("name", "region"), ("format", "png"), ("minzoom", "0"), ("maxzoom", "0")]
        connection.executemany("INSERT INTO metadata VALUES (?, ?)", values)
        connection.execute("INSERT INTO tiles VALUES (0, 0, 0, ?)", (png.tobytes(),))
    return path


def test_two_reviewers_merge_their_work_and_hand_over_a_kmz(
    made_archive: Path, start_station: Callable[..., str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    """Each reviews a copy by keyboard; one takes in the other's file; what they differ on is disputed."""
    pages = {}
    for name in ("Ana", "Bo"):
        copy = tmp_path / name
        shutil.copytree(made_archive, copy)
        shutil.rmtree(copy / "review", ignore_errors=True)
        station = start_station(copy)
        page = open_page(accept_downloads=True)
        page.goto(station)
        name_reviewer(page, name)
        open_view(page, station, "review")
        page.wait_for_selector(".finding.current")
        pages[name] = page
    for key in "ccr":
        press_and_wait(pages["Ana"], key)
    for key in "crr":
        press_and_wait(pages["Bo"], key)
    pages["Bo"].click("#share")
    with pages["Bo"].expect_download() as waiting:
        pages["Bo"].click("#give")
    reviews = tmp_path / "reviews.zip"
    waiting.value.save_as(reviews)
    ana = pages["Ana"]
    ana.click("#share")
    ana.set_input_files("#merge-file", str(reviews))
    ana.wait_for_selector("dialog .notice")
    ana.keyboard.press("Escape")
    ana.wait_for_selector(".finding .state.disputed")
    states = [ana.get_attribute(f".finding:not([hidden]) >> nth={at} >> .state", "class") for at in range(3)]
    assert states == ["state confirmed", "state disputed", "state rejected"]
    for at in range(3):
        ana.check(f".finding:not([hidden]) >> nth={at} >> input")
    with ana.expect_download() as waiting:
        ana.click("#export")
    kmz = tmp_path / "findings.kmz"
    waiting.value.save_as(kmz)
    if shutil.which("ogrinfo"):
        said = subprocess.run(["ogrinfo", "-al", "-so", str(kmz)], capture_output=True, text=True, check=True).stdout
        assert "Feature Count: 3" in said
        print(re.findall(r"Layer name: .*|Feature Count: .*|Geometry: .*", said))


def press_and_wait(page: Any, key: str) -> None:
    """Press a key that decides, and wait for the next finding."""
    before = page.inner_text(".finding.current b")
    page.keyboard.press(key)
    until(page, "before => document.querySelector('.finding.current b').textContent !== before", arg=before)


def test_from_an_archive_to_a_label_that_flies(
    station: str, flight: tuple[Path, str], open_page: Callable[..., Any]
) -> None:
    """Choose, fit, save and send in the browser; the running flight then names the new bank in its observations."""
    page = open_page()
    page.goto(station)
    choose_examples(page, station)
    page.fill("#label-name", "wooded bank")
    page.click("#save-label")
    page.click("[data-send]")
    page.wait_for_selector("[data-bank]")
    sent = page.get_attribute("[data-bank]", "data-bank")
    journal = flight[0] / "first" / "journal.sqlite"
    until_s = time.monotonic() + 60
    used = ""
    while used != sent[:16] and time.monotonic() < until_s:
        with sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True) as connection:
            record = connection.execute("SELECT record FROM observations ORDER BY frame DESC LIMIT 1").fetchone()
        used = json.loads(record[0])["bank"]
        time.sleep(0.3)
    assert used == sent[:16]


def test_a_bank_is_signed_outside_the_server_for_an_aircraft_that_wants_it(
    made_archive: Path, start_station: Callable[..., str], open_page: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Unsigned and wrongly signed banks are refused with the aircraft's own words; the signed one is used."""
    air, ground = tmp_path / "air", tmp_path / "ground"
    ground.mkdir()
    monkeypatch.setenv("OVERFLIGHT_HOME", str(air))
    monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(air / "trusted-keys"))
    flight = start_flight(tmp_path / "flights" / "signed")
    try:
        (ground / "control.token").write_bytes((air / "control.token").read_bytes())
        (ground / "control.token").chmod(0o600)
        for key in ("survey", "other"):
            overflight("keys", "new", ground / f"{key}.key", "--no-password")
        (air / "trusted-keys").mkdir()
        shutil.copy(ground / "survey.pub", air / "trusted-keys" / "survey.pub")
        monkeypatch.setenv("OVERFLIGHT_HOME", str(ground))
        monkeypatch.setenv("OVERFLIGHT_TRUSTED_KEYS", str(ground / "trusted-keys"))
        station = start_station(made_archive, "--aircraft", flight.address)
        page = open_page()
        page.goto(station)
        choose_examples(page, station)
        page.fill("#label-name", "signed bank")
        page.click("#save-label")
        page.click("[data-send]")
        page.wait_for_selector(".notice.bad >> text=not signed")
        bank = made_archive / "banks" / "signed-bank.safetensors"
        for key, answer in (("other", ".notice.bad"), ("survey", "[data-bank]")):
            copy = tmp_path / key / bank.name
            copy.parent.mkdir()
            shutil.copy(bank, copy)
            overflight("sign", copy, "--key", ground / f"{key}.key")
            page.set_input_files("#signature", f"{copy}.minisig")
            page.click("[data-send]")
            page.wait_for_selector(answer)
            print(key, page.inner_text(answer)[:160])
        if shutil.which("minisign"):
            subprocess.run(["minisign", "-Vqm", copy, "-p", ground / "survey.pub"], check=True)
        check_axe(page, "signature")
    finally:
        flight.end()


def write_pmtiles(path: Path) -> Path:
    """Write raster tiles of one colour around Brighton's place, zooms 0 to 2, in the format's own library."""
    import cv2
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    _, png = cv2.imencode(".png", np.full((256, 256, 3), (120, 200, 120), np.uint8))
    header = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE, "min_zoom": 0, "max_zoom": 2}
    edges = {
        "min_lon_e7": 5,
        "min_lat_e7": 44,
        "max_lon_e7": 15,
        "max_lat_e7": 50,
        "center_lon_e7": 8,
        "center_lat_e7": 47,
    }
    header |= {name: int(value * 1e7) for name, value in edges.items()} | {"center_zoom": 1}
    with path.open("wb") as file:
        writer = Writer(file)
        for z, x, y in ((0, 0, 0), (1, 1, 0), (2, 2, 1)):
            writer.write_tile(zxy_to_tileid(z, x, y), png.tobytes())
        writer.finalize(header, {"name": "region"})
    return path


def write_mosaic(path: Path) -> Path:
    """Write an orthomosaic of the demo's stills in UTM, with a corner that shows nothing."""
    import cv2

    tifffile = pytest.importorskip("tifffile")
    stills: list[Any] = [cv2.imread(str(one)) for one in sorted(STILLS.glob("*.JPG"))[:4]]
    stills = [one[:, :, ::-1] for one in stills]
    rows = [np.concatenate([cv2.resize(one, (1200, 1200)) for one in stills[at : at + 2]], axis=1) for at in (0, 2)]
    pixels = np.dstack([np.concatenate(rows), np.full((2400, 2400), 255, np.uint8)])
    pixels[:700, :700] = 0
    tags = [
        (33550, "d", 3, (0.2, 0.2, 0.0)),
        (33922, "d", 6, (0.0, 0.0, 0.0, 640_000.0, 5_190_000.0, 0.0)),
        (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)),
    ]
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], tile=(256, 256), extratags=tags)
    return path


def test_backdrops_are_the_users_tiles_and_the_archives_mosaics(
    start_station: Callable[..., str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    """A mosaic, PMTiles and MBTiles are drawn; where they end, nothing is asked for and nothing complained about."""
    archive = tmp_path / "archive"
    overflight("archive", "add", archive, write_mosaic(tmp_path / "ortho.tif"))
    station = start_station(archive)
    page = open_page()
    open_view(page, station, "map")
    until(page, "document.querySelector('.leaflet-mosaics-pane img')?.naturalWidth > 0")
    box: Any = page.locator(".leaflet-mosaics-pane img").bounding_box()
    assert box["width"] > 200
    assert abs(box["width"] / box["height"] - 1) < 0.05  # a square on the ground is one on the map
    for path in (write_pmtiles(tmp_path / "region.pmtiles"), write_mbtiles(tmp_path / "world.mbtiles")):
        page.fill("#tiles-path", str(path))
        page.click(".map-panel form button")
        page.wait_for_selector("img.leaflet-tile-loaded", state="attached")
        for _ in range(8):
            page.click(".leaflet-control-zoom-out")
            page.wait_for_timeout(200)
        page.screenshot(path=str(tmp_path / f"{path.suffix[1:]}.png"))


def metrics(session: Any) -> dict[str, float]:
    """Return the seconds that the page's main thread has spent so far, by kind."""
    wanted = {"ScriptDuration", "LayoutDuration", "RecalcStyleDuration"}
    found = session.send("Performance.getMetrics")["metrics"]
    return {one["name"]: one["value"] for one in found if one["name"] in wanted}


# The page's own clock, not that of the test that looks.
FIRST_SEEN = """
new MutationObserver((_, watch) => {
  if (!document.querySelector(".finding.current .finding-label")?.textContent) return;
  watch.disconnect();
  requestAnimationFrame(() => { globalThis.firstSeen = performance.now(); });
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
SCROLL = """
async () => {
  const list = document.querySelector('.review-list');
  const end = list.scrollHeight - list.clientHeight;
  const times = [];
  let last = await new Promise(requestAnimationFrame);
  for (let at = 0; at < 300; at += 1) {
    list.scrollTop = at < 200 ? at * 60 : end * (at - 200) / 100;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}
"""


def test_ten_thousand_findings_open_quickly_and_scroll_smoothly(
    fly_over: Callable[..., Path], colour_bundle: Any, start_station: Callable[..., str],
    open_page: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    """A phone's first view within a second from loopback, and few elements however long the list is."""
    from overflight.station.archive import Archive

    archive = Archive(tmp_path / "large")
    red, green = (250, 30, 30), (30, 250, 30)
    archive.add(fly_over("large", [(red, green)[at % 2] for at in range(FINDINGS)]))
    station = start_station(archive.directory, "--bundle", colour_bundle.directory)
    page = open_page(390, device_scale_factor=2, is_mobile=True, has_touch=True)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.add_init_script(FIRST_SEEN)
    for rate in (1, 4):
        session.send("Emulation.setCPUThrottlingRate", {"rate": rate})
        measure_findings(page, station, session, rate)


def measure_findings(page: Any, station: str, session: Any, rate: int) -> None:
    """Print the time to the first view and the frames of a scroll over the whole list."""
    firsts = []
    for _ in range(5):
        page.goto("about:blank")
        page.goto(f"{station}/#/review")
        page.wait_for_selector(".finding.current b")
        until(page, "globalThis.firstSeen > 0")
        firsts.append(page.evaluate("firstSeen"))
    assert page.evaluate("document.querySelectorAll('.virtual-item').length") < 60
    before = metrics(session)
    times = np.array(page.evaluate(SCROLL))
    spent = {name: 1000 * (value - before[name]) / len(times) for name, value in metrics(session).items()}
    shown = page.inner_text(".review-count")
    assert re.search(r"10,000", shown)
    print(
        f"processor slowed by {rate}: first view ms {[round(one) for one in firsts]}; frames ms " + percentiles(times)
    )
    print("a frame of scrolling, ms: " + ", ".join(f"{name} {value:.2f}" for name, value in spent.items()))


def percentiles(times: Any) -> str:
    """Return the middle and the slow end of frame times."""
    return " ".join(f"p{at} {np.percentile(times, at):.1f}" for at in (50, 95, 99, 100))
