"""The server behind the page: every function over HTTP, and every way in that is not meant.

Covers: station/commands/serve.py, station/serve/aircraft.py, station/serve/desk.py, station/serve/endpoint.py,
station/serve/guard.py, station/serve/live.py, station/serve/live_shapes.py,
station/serve/mapping.py, station/serve/overviews.py, station/serve/tile_files.py, station/serve/tracks.py,
station/serve/reviewing.py, station/serve/rows.py, station/serve/searching.py, station/serve/shapes.py,
station/serve/teaching.py, station/serve/uploading.py, station/search/filter_text.py.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bank import LabelBank
from overflight.runtime.pose.footprint import Place
from overflight.runtime.records import Observation
from overflight.station.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from overflight.runtime.bundle import Bundle

testclient = pytest.importorskip("starlette.testclient", reason="the serve extra and httpx")

RED, GREEN, BLUE = (250, 30, 30), (30, 250, 30), (30, 30, 250)
TOKEN = "a-token-of-some-length"


@pytest.fixture
def open_client(colour_bundle: Bundle) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a client of a server on an archive."""
    from overflight.station.serve.app import make_app
    from overflight.station.serve.desk import Desk, Settings

    clients: list[Any] = []

    def open_one(archive: Path | None, **settings: Any) -> Any:
        desk = Desk(Settings(archive, colour_bundle.directory, **settings))
        client = testclient.TestClient(make_app(desk)[0], base_url="http://127.0.0.1:8440")
        clients.append(client)
        client.__enter__()
        return client

    yield open_one
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(archive: Archive, open_client: Callable[..., Any]) -> Any:
    """A client of a server on the archive of two flights."""
    return open_client(archive.directory)


@pytest.fixture
def many(fly_over: Callable[..., Path], tmp_path: Path) -> Archive:
    """An archive with enough pictures to teach a label: six red, twelve of other colours."""
    made = Archive(tmp_path / "archive")
    made.add(fly_over("many", [RED] * 6 + [GREEN, BLUE] * 6))
    return made


def png(width: int = 40, height: int = 30, colour: tuple[int, int, int] = RED) -> bytes:
    cv2 = pytest.importorskip("cv2")
    pixels = np.full((height, width, 3), colour[::-1], np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


def test_state_says_what_the_server_has(client: Any) -> None:
    """The page shows only what is possible."""
    state = client.get("/api/state").json()
    assert (state["archive"]["flights"], state["archive"]["rows"]) == (2, 5)
    assert [one["name"] for one in state["flights"]] == ["first", "second"]
    assert all(one["searchable"] for one in state["flights"])


def test_a_row_is_searched_for_with_its_neighbours_and_its_picture(client: Any) -> None:
    """The red rows of both flights are found by one of them; a part of a picture is a question too."""
    found = client.post("/api/search", json={"like": [{"row": 1}]}).json()
    assert [hit["row"] for hit in found["hits"][:2]] == [1, 5]
    part = client.post("/api/search", json={"like": [{"row": 1, "region": [0.1, 0.1, 0.5, 0.5]}], "most": 2}).json()
    assert {hit["row"] for hit in part["hits"]} == {1, 5}
    assert client.get("/api/rows/1/neighbours").json()[0]["row"] == 5
    assert client.get("/api/rows/1/ground").json() == []
    address = f"/api/rows/1/picture.jpg?width=320&of={client.get('/api/rows/1').json()['number']}"
    picture = client.get(address)
    assert picture.headers["content-type"] == "image/jpeg"
    again = client.get(address, headers={"If-None-Match": picture.headers["etag"]})
    assert again.status_code == 304


def test_filters_are_those_of_the_command_line(client: Any) -> None:
    """A flight by its name; a filter that cannot be read is refused with what was expected."""
    found = client.post("/api/search", json={"like": [{"row": 1}], "filters": {"flight": "second"}}).json()
    assert {hit["flight_name"] for hit in found["hits"]} == {"second"}
    wrong = client.post("/api/search", json={"like": [{"row": 1}], "filters": {"near": "47.1"}})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "usage")
    assert "expected 3 numbers" in wrong.json()["error"]
    assert client.post("/api/search", json={"like": [{"row": 1}], "filters": {"nearby": "1"}}).status_code == 422


def test_two_reviewers_decide_and_merge(client: Any) -> None:
    """Decisions are listed, disputed where they differ, handed over as a zip, and merged without a second copy."""
    page = client.get("/api/findings").json()
    number = page["items"][0]["number"]
    for reviewer, state in (("Ada", "confirmed"), ("Bo", "rejected")):
        mark = {"state": state, "reviewer": reviewer, "comment": "<b>seen</b>"}
        answer = client.post(f"/api/findings/{number}", json=mark).json()
    assert answer["state"] == "disputed"
    assert [one["reviewer"] for one in answer["reviews"]] == ["Ada", "Bo"]
    assert client.get("/api/findings?state=disputed").json()["total"] == 1
    packed = client.get("/api/review.zip").content
    assert sorted(zipfile.ZipFile(io.BytesIO(packed)).namelist()) == ["Ada.jsonl", "Bo.jsonl"]
    assert client.post("/api/review/merge", content=packed).json() == {"added": 0}
    line = json.dumps({"finding": number, "state": "confirmed", "reviewer": "Cy", "utc_ns": 1}).encode() + b"\n"
    assert client.post("/api/review/merge?name=Cy.jsonl", content=line).json() == {"added": 1}


@pytest.mark.parametrize("name", ["../../evil.jsonl", "/etc/x.jsonl", "a/b.jsonl", "..jsonl", "x.txt", ""])
def test_a_merge_writes_no_file_outside_the_archive(client: Any, archive: Archive, name: str) -> None:
    """Neither the name of an upload nor a name inside a zip becomes a path."""
    assert client.post("/api/review/merge", params={"name": name}, content=b"{}\n").status_code in {400, 422}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(name or "x", "{}\n")
    assert client.post("/api/review/merge", content=buffer.getvalue()).status_code in {400, 422}
    assert not list(archive.directory.parent.rglob("*evil*"))


def test_findings_are_written_as_files(client: Any) -> None:
    """Without places a map cannot be made, and says so; a page of pictures can."""
    numbers = [one["number"] for one in client.get("/api/findings").json()["items"]]
    page = client.post("/api/export", json={"format": "html", "numbers": numbers})
    assert 'filename="findings.html"' in page.headers["content-disposition"]
    assert page.content.count(b"<figure") == len(numbers)
    assert client.post("/api/export", json={"format": "gpkg", "numbers": numbers}).status_code == 409
    assert client.post("/api/export", json={"format": "csv", "numbers": ["00000000-9"]}).status_code == 404


def test_a_label_is_taught_kept_and_downloaded(many: Archive, open_client: Callable[..., Any]) -> None:
    """Six red choices against six others find the red rows; the saved bank is a bank of this tower."""
    client = open_client(many.directory)
    choices = {"more": [1, 2, 3, 4, 5, 6], "less": [7, 8, 9, 10, 11, 12]}
    taught = client.post("/api/teach", json=choices).json()
    assert taught["auroc"] > 0.9
    assert {hit["row"] for hit in taught["preview"][:6]} == set(choices["more"])
    assert sum(taught["histogram"]["counts"]) == 18
    saved = client.post("/api/banks", json={"name": "red roof/../x", "threshold": 0.4, **choices}).json()
    assert [path.name for path in (many.directory / "banks").iterdir()] == ["red-roof-..-x.safetensors"]
    bank = LabelBank.decode(client.get(saved["address"]).content, source="download")
    assert bank.header.labels[0].threshold == 0.4
    assert client.post("/api/teach", json={"more": [1, 2, 3, 4], "less": [4, 5]}).status_code == 422


def test_an_upload_is_classified_and_measured(client: Any, archive: Archive, colour_bank: LabelBank) -> None:
    """A picture from outside is judged by a bank of the archive; its embedding comes as NPZ and JSON."""
    (archive.directory / "banks").mkdir()
    colour_bank.save(archive.directory / "banks" / "colours.safetensors")
    taken = client.post("/api/uploads?name=roof.png", content=png()).json()
    assert (taken["width"], taken["height"]) == (40, 30)
    answer = client.post("/api/classify", json={"upload": taken["upload"], "bank": "saved.colours"}).json()
    assert answer["scores"][0]["label"] == colour_bank.header.labels[0].text
    packed = client.post("/api/features", json={"uploads": [taken["upload"]], "format": "npz"}).content
    vector = np.load(io.BytesIO(packed))["embeddings"][0]
    plain = client.post("/api/features", json={"uploads": [taken["upload"]], "format": "json"}).json()
    assert client.post("/api/classify", json={"upload": "0" * 32 + ".png"}).status_code == 404
    assert np.allclose(vector, plain["embeddings"][0], atol=1e-6)


def test_a_large_tiff_is_read_in_windows(client: Any) -> None:
    """What does not fit one look is cut; the best window counts."""
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    pixels = np.full((2500, 2300, 3), GREEN, np.uint8)
    tifffile.imwrite(buffer, pixels, photometric="rgb", tile=(256, 256))
    taken = client.post("/api/uploads?name=big.tif", content=buffer.getvalue()).json()
    packed = client.post("/api/features", json={"uploads": [taken["upload"]]}).content
    assert np.load(io.BytesIO(packed))["embeddings"].shape[0] == 1


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 torn", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"PK\x03\x04"]
)
def test_what_is_no_picture_is_refused(client: Any, content: bytes) -> None:
    """One line, no traceback, and nothing is kept."""
    answer = client.post("/api/uploads?name=x", content=content)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_a_decompression_bomb_is_refused(client: Any) -> None:
    """A PNG of a few kilobytes that says 60,000 x 60,000 is not decoded."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    answer = client.post("/api/uploads?name=bomb.png", content=b"\x89PNG\r\n\x1a\n" + chunk + bytes(2000))
    assert answer.status_code == 422


def test_the_token_is_wanted_everywhere_but_at_the_door(archive: Archive, open_client: Callable[..., Any]) -> None:
    """Missing, wrong, in the query: refused. As a header, or as the cookie that the page gets: taken."""
    client = open_client(archive.directory, token=TOKEN)
    assert client.get("/").status_code == 200
    assert client.get("/assets/app.js").status_code == 200
    for path in ("/api/state", "/api/live", "/openapi.json", "/tiles/a/1/1/1", "/api/rows/1/picture.jpg"):
        assert client.get(path).status_code == 401
        assert client.get(path, params={"token": TOKEN}).status_code == 401
        assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
    assert client.get("/api/state", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.post("/api/session", json={"token": "wrong"}).status_code == 401
    given = client.post("/api/session", json={"token": TOKEN})
    assert "HttpOnly" in given.headers["set-cookie"]
    assert "samesite=strict" in given.headers["set-cookie"].lower()
    assert client.get("/api/state").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "localhost@evil.example:80"])
def test_a_foreign_host_name_is_refused(client: Any, host: str) -> None:
    """A name that an attacker points to this machine does not open it (DNS rebinding)."""
    assert client.get("/api/state", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8440", "localhost:8440", "[::1]:8440", "192.168.1.20:8440", "LOCALHOST"])
def test_this_machines_names_are_taken(client: Any, host: str) -> None:
    """Loopback in every spelling, and addresses."""
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:9"},
    ],
)
def test_a_post_from_another_site_is_refused(client: Any, headers: dict[str, str]) -> None:
    """A page elsewhere cannot review, teach or send."""
    assert client.post("/api/tiles", json={"path": "/x.mbtiles"}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        *("/assets/../app.py", "/assets/%2e%2e/app.py", "/assets//etc/passwd", "/api/banks/..%2f..%2fx/file"),
        *("/api/rows/0x1", "/api/rows/-1", "/api/rows/99999", "/api/rows/" + "9" * 40),
        *("/api/live/..%2f../picture.jpg", "/api/mosaics/x.jpg"),
    ],
)
def test_no_path_leads_out(client: Any, path: str) -> None:
    """What is not there is 404 with one line."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "code"}


def test_sizes_are_bounded_with_and_without_a_length(archive: Archive, open_client: Callable[..., Any]) -> None:
    """A body that is too long is refused, also where it comes in pieces."""
    client = open_client(archive.directory, upload_bytes=10_000)
    assert client.post("/api/uploads", content=bytes(20_000)).status_code == 413
    assert client.post("/api/uploads", content=iter([bytes(6000)] * 4)).status_code == 413


def test_the_headers_bind_the_page(client: Any) -> None:
    """No inline code, no other site, no frame, no sniffing; answers of the API are not kept."""
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/state").headers["cache-control"] == "no-store"


def test_the_description_names_every_endpoint(client: Any) -> None:
    """OpenAPI 3.1, made from the same table as the routes; every reference is there."""
    from overflight.station.serve.app import ENDPOINTS

    text = client.get("/openapi.json").text
    described = json.loads(text)
    assert described["openapi"] == "3.1.0"
    assert {(path, method.upper()) for path, ways in described["paths"].items() for method in ways} == {
        (one.path, one.method) for one in ENDPOINTS
    }
    for name in set(json.dumps(described).split('"#/components/schemas/')[1:]):
        assert name.split('"')[0] in described["components"]["schemas"]


def test_a_flight_is_shown_live(fly_over: Callable[..., Path], open_client: Callable[..., Any], tmp_path: Path) -> None:
    """The newest frame of a flight directory, its picture and its track."""
    from overflight.station.serve.desk import Desk, Settings
    from overflight.station.serve.live import all_aircraft

    flight = fly_over("now", [RED, BLUE])
    client = open_client(None, flights=(flight,))
    assert client.get("/api/live/now/track").json() == []
    assert client.get("/api/live/now/picture.jpg").status_code in {200, 204}
    assert client.get("/api/live/other/picture.jpg").status_code == 404
    assert client.get("/api/state").json()["archive"] is None
    assert client.post("/api/search", json={"like": [{"row": 1}]}).status_code == 404
    desk = Desk(Settings(flights=(flight,)))
    (one,) = all_aircraft(desk)
    desk.close()
    assert (one.name, one.ended, one.frame, one.bank) == ("now", True, 1, "colours")


def test_pictures_of_events_have_addresses_whatever_the_flight_is_called(
    fly_over: Callable[..., Path], open_client: Callable[..., Any]
) -> None:
    """Label Studio 1266, PhotoPrism 4383: what has a meaning in an address cut the names short."""
    from overflight.station.serve.aircraft import read_aircraft

    flight = fly_over("a#b 50% ü", [RED] * 6)
    client = open_client(None, flights=(flight,))
    (event, *_) = read_aircraft(flight).events or ()
    assert event.picture is not None
    assert client.get(event.picture).status_code == 200


def test_raster_tiles_are_remembered_and_served(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MBTiles count rows from the south; a file of vector tiles is refused by name."""
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, form in (("raster", "png"), ("vector", "pbf")):
        with sqlite3.connect(tmp_path / f"{name}.mbtiles") as file:
            file.execute("CREATE TABLE metadata (name, value)")
            file.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
            file.execute("INSERT INTO metadata VALUES ('format', ?)", (form,))
            file.execute("INSERT INTO metadata VALUES ('bounds', '8,47,9,48')")
            file.execute("INSERT INTO tiles VALUES (1, 0, 1, ?)", (png(256, 256),))
    source = client.post("/api/tiles", json={"path": str(tmp_path / "raster.mbtiles")}).json()
    assert source["bounds"] == [8, 47, 9, 48]
    assert client.get(source["address"].format(z=1, x=0, y=0)).headers["content-type"] == "image/png"
    assert client.get(source["address"].format(z=1, x=0, y=1)).status_code == 204
    refused = client.post("/api/tiles", json={"path": str(tmp_path / "vector.mbtiles")})
    assert "pbf" in refused.json()["error"]
    assert client.post("/api/tiles", json={"path": "/etc/passwd"}).status_code == 400


def test_a_remembered_map_that_cannot_be_read_is_named(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is gone with its disk, one is damaged, one fails in reading: none just disappears from the list."""
    monkeypatch.setenv("OVERFLIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    broken = [tmp_path / name for name in ("gone.mbtiles", "damaged.mbtiles", "failing.pmtiles")]
    broken[1].write_bytes(b"no map")
    broken[2].mkdir()
    (tmp_path / "home" / "tiles.json").write_bytes(msgspec.json.encode([str(path) for path in broken]))
    state = client.get("/api/state").json()
    assert state["tiles"] == []
    assert [text.split(":")[0] for text in state["tiles_unread"]] == [path.name for path in broken]
    assert str(tmp_path) not in "".join(state["tiles_unread"])


def test_a_damaged_label_bank_does_not_close_the_page(client: Any, archive: Archive) -> None:
    """It is named; the other banks and views work."""
    (archive.directory / "banks").mkdir()
    (archive.directory / "banks" / "torn.safetensors").write_bytes(b"torn")
    state = client.get("/api/state").json()
    assert "torn.safetensors" in state["banks_unread"][0]
    assert str(archive.directory) not in state["banks_unread"][0]


def test_a_browser_keeps_a_picture_only_with_the_findings_number(client: Any) -> None:
    """Immich 6955: rows have the same numbers in every archive, and a browser showed those of the last one."""
    number = client.get("/api/rows/1").json()["number"]
    assert "etag" not in client.get("/api/rows/1/picture.jpg").headers
    assert "max-age" in client.get(f"/api/rows/1/picture.jpg?of={number}").headers["cache-control"]
    assert client.get("/api/rows/1/picture.jpg?of=ffffffff-0").status_code == 204


def add_footprint(flight: Path, west: float = 7.0, east: float = 7.1) -> None:
    """Give the frames of a flight a place."""
    place = Place(46.0, west, 5.0, footprint=((west, 46.0), (east, 46.0), (east, 46.1), (west, 46.1)))
    with closing(sqlite3.connect(flight / "journal.sqlite")) as connection, connection:
        for row, record in connection.execute("SELECT id, record FROM observations").fetchall():
            placed = msgspec.structs.replace(msgspec.json.decode(record, type=Observation), place=place)
            connection.execute("UPDATE observations SET record = ? WHERE id = ?", (msgspec.json.encode(placed), row))


def test_two_archives_of_one_flight_have_maps_of_their_own(
    fly_over: Callable[..., Path], open_client: Callable[..., Any], tmp_path: Path
) -> None:
    """The rows of one flight have other numbers in another archive."""
    first, second = fly_over("first", [RED]), fly_over("second", [BLUE])
    add_footprint(second)
    found = []
    for name, flights in (("a", (second,)), ("b", (first, second))):
        archive = Archive(tmp_path / name)
        for flight in flights:
            archive.add(flight)
        drawn = open_client(archive.directory).get("/api/map").json()["flights"]
        found.append([one["footprints"][0]["row"] for one in drawn if one["footprints"]])
    assert found == [[1], [2]]


def test_ground_on_the_date_line_is_drawn_in_one_piece(
    fly_over: Callable[..., Path], open_client: Callable[..., Any], tmp_path: Path
) -> None:
    """Its corners have longitudes of both signs; a map that joins them as they are draws around the earth."""
    flight = fly_over("fiji", [RED])
    add_footprint(flight, 179.95, -179.95)
    archive = Archive(tmp_path / "archive")
    archive.add(flight)
    (drawn,) = open_client(archive.directory).get("/api/map").json()["flights"]
    assert [lon for _, lon in drawn["bounds"]] == pytest.approx([179.95, 180.05])


def test_a_picture_that_was_not_kept_is_no_error(
    archive: Archive, open_client: Callable[..., Any], tmp_path: Path
) -> None:
    """Browsers log a 404 of a picture as an error of the page; a row that is not there is one."""
    shutil.rmtree(tmp_path / "sources")
    for flight in archive.flights():
        journal = archive.flight_directory(flight.id) / "journal.sqlite"
        with closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute("DELETE FROM pictures")
    client = open_client(archive.directory)
    answer = client.get("/api/rows/1/picture.jpg")
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/api/rows/1/original").status_code == 404
    assert client.get("/api/rows/99999/picture.jpg").status_code == 404


def test_an_upload_that_is_cut_or_refused_leaves_nothing(archive: Archive, open_client: Callable[..., Any]) -> None:
    """A body is written to a file while it comes; the file goes with it."""
    from overflight.station.serve.app import make_app
    from overflight.station.serve.desk import Desk, Settings

    desk = Desk(Settings(archive.directory, upload_bytes=3_000_000))
    with testclient.TestClient(make_app(desk)[0], base_url="http://127.0.0.1:8440") as client:
        assert client.post("/api/uploads", content=iter([png(), bytes(4_000_000)])).status_code == 413
        assert client.post("/api/uploads", content=b"no picture" + bytes(1_500_000)).status_code == 422
        assert client.post("/api/uploads?name=a.png", content=png()).status_code == 200
        assert len(list(desk.uploads.iterdir())) == 1
        assert list(desk.incoming.iterdir()) == []


def test_a_server_that_stops_answers_what_runs(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request in progress gets one line instead of a torn connection, and the work it began ends by itself."""
    import asyncio

    from overflight.station.serve.app import _unless_closing
    from overflight.station.serve.endpoint import RefusedError

    async def stop() -> None:
        closing = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, closing.set)
        with pytest.raises(RefusedError, match="stopping"):
            await _unless_closing(asyncio.sleep(60), closing)

    asyncio.run(stop())


def write_mosaic(path: Path) -> Path:
    """Write a GeoTIFF of 300 x 200 pixels of 1 m in UTM zone 32 north, transparent at its left."""
    tifffile = pytest.importorskip("tifffile")
    pixels = np.full((200, 300, 4), (*GREEN, 255), np.uint8)
    pixels[:, :100] = 0
    tags = [
        (33550, "d", 3, (1.0, 1.0, 0.0)),
        (33922, "d", 6, (0.0, 0.0, 0.0, 660_000.0, 5_250_000.0, 0.0)),
        (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)),
    ]
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], extratags=tags)
    return path


def test_a_mosaic_is_a_backdrop_where_it_lies(
    colour_bundle: Bundle, colour_bank: LabelBank, open_client: Callable[..., Any], tmp_path: Path
) -> None:
    """Its corners are those that GDAL computes, its picture is transparent where it shows nothing."""
    cv2 = pytest.importorskip("cv2")
    from overflight.runtime.overflight import Overflight
    from overflight.station.archive.sources import add_source

    archive = Archive(tmp_path / "archive")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        add_source(archive, write_mosaic(tmp_path / "m.tif"), overflight)
    client = open_client(archive.directory)
    drawn = client.get("/api/map").json()
    (mosaic,) = drawn["mosaics"]
    # gdaltransform -s_srs EPSG:32632 -t_srs EPSG:4326 of the four corners
    expected = [(47.3820, 11.1198), (47.3819, 11.1238), (47.3837, 11.1238), (47.3838, 11.1199)]
    assert np.allclose(mosaic["ring"], expected, atol=2e-4)
    assert drawn["flights"][0]["footprints"][0]["ring"] == mosaic["ring"]
    sheet = cv2.imdecode(np.frombuffer(client.get(mosaic["address"]).content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert sheet.shape == (200, 300, 4)
    assert (sheet[100, 50, 3], sheet[100, 200, 3]) == (0, 255)
    assert np.abs(sheet[100, 200, :3].astype(int) - GREEN[::-1]).max() < 12
    row = client.get("/api/rows/1").json()
    assert abs(row["lat_deg"] - 47.3829) < 1e-3
    (tmp_path / "m.tif").unlink()
    assert client.get(mosaic["address"]).status_code == 204
    assert client.get("/api/map").json()["mosaics"] == []


def test_a_label_that_is_kept_again_loses_its_old_signature(many: Archive, open_client: Callable[..., Any]) -> None:
    """A signature next to a changed bank would be sent, and refused in flight."""
    client = open_client(many.directory)
    choices = {"more": [1, 2, 3, 4, 5, 6], "less": [7, 8, 9, 10, 11, 12]}
    client.post("/api/banks", json={"name": "roof", **choices})
    (many.directory / "banks" / "roof.safetensors.minisig").write_text("old")
    assert client.post("/api/banks", json={"name": "roof", **choices}).json().get("signed", False) is False
