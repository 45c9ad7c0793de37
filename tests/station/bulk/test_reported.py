"""Cases from public reports of comparable tools: img2dataset, clip-retrieval, rclip, fsspec, GeoParquet's readers.

Covers: station/bulk/listing.py, station/bulk/urls.py, station/bulk/reading.py, station/bulk/rows.py
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.runtime.errors import UsageError
from overflight.runtime.window import Window
from overflight.station.bulk import BulkStore, reading
from overflight.station.bulk.outcome import Outcome
from overflight.station.bulk.rows import pyarrow, window_place
from overflight.station.bulk.run import BulkProgress, all_failed
from overflight.station.bulk.shard import ShardTask, embed_shard

Bulk = Callable[..., BulkProgress]
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run shards in this process, and try again at once."""

    def run(tasks: Iterator[ShardTask], workers: int) -> Iterator[Outcome]:
        for task in tasks:
            yield Outcome(task.shard, embed_shard(task))

    monkeypatch.setattr("overflight.station.bulk.run.run_local", run)
    monkeypatch.setattr(reading, "WAITS_S", (0.0, 0.0))


class _Served(SimpleHTTPRequestHandler):
    down = False

    def do_GET(self) -> None:
        if _Served.down:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve ``tmp_path/pictures`` over HTTP."""
    pytest.importorskip("aiohttp")
    folder = str(tmp_path / "pictures")
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Served(*a, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_what_an_outage_lost_is_made_up(bulk: Bulk, pictures: Path, tmp_path: Path, served: str, rows_of: Rows) -> None:
    """img2dataset#333, #452: a network that was gone for a while; --retry-failed embeds what failed, and only that."""
    (tmp_path / "list.txt").write_text("".join(f"{served}/{n}.png\n" for n in range(6)))
    _Served.down = True
    assert bulk(tmp_path / "list.txt").failed == 6
    _Served.down = False
    assert bulk(tmp_path / "list.txt").failed == 6  # a finished shard is not made again unasked
    again = bulk(tmp_path / "list.txt", retry_failed=True)
    assert (again.rows, again.failed) == (6, 0)
    assert [row["name"][-5:] for row in rows_of()] == [f"{n}.png" for n in range(6)]


def test_a_page_in_the_place_of_a_picture_is_named(bulk: Bulk, pictures: Path, tmp_path: Path, served: str) -> None:
    """A server that answers 200 with HTML."""
    (pictures / "gone.jpg").write_text("<html>not here</html>")
    (tmp_path / "list.txt").write_text(f"{served}/gone.jpg\n{served}/1.png\n")
    assert bulk(tmp_path / "list.txt").rows == 1


def test_one_bad_line_does_not_end_a_list(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """A video's address, an unknown scheme, and half an address among good lines are listed as failed."""
    lines = ["pictures/1.png", "https://host/a.mp4", "gopher-x://a/b.png", "http://[::1/a.png", "pictures/2.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert bulk(tmp_path / "list.txt").rows == 2
    assert len(BulkStore(tmp_path / "store").refused().failed) == 3


@pytest.mark.parametrize("name", ["a[1].png", "a{2}.png", "a b.png", "a%20b.png", "a#1.png", "é(1)+.png"])
def test_unusual_names_in_a_store(bulk: Bulk, pictures: Path, name: str, rows_of: Rows) -> None:
    """fsspec#838, #1476, #390: brackets and other characters of patterns in the name of an object."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.pipe(f"/odd/{name}", (pictures / "1.png").read_bytes())
    try:
        assert bulk("memory://odd/").rows == 1
        assert rows_of()[0]["name"] == f"memory:///odd/{name}"
    finally:
        system.rm("/odd", recursive=True)


@pytest.mark.parametrize("name", ["a[1].png", "a{2}.png", "a b.png", "é(1)+.png", "b[1].png?token=x&y=%2F"])
def test_unusual_addresses(bulk: Bulk, pictures: Path, tmp_path: Path, served: str, name: str) -> None:
    """fsspec#418, #1476: the same over HTTP, with a query, from a list."""
    (pictures / name.partition("?")[0]).write_bytes((pictures / "1.png").read_bytes())
    (tmp_path / "list.txt").write_text(f"{served}/{name}\n", encoding="utf-8")
    bulk(tmp_path / "list.txt")
    assert [one.reason for one in all_failed(BulkStore(tmp_path / "store"))] == []


def test_unusual_names_in_a_folder(bulk: Bulk, pictures: Path, rows_of: Rows) -> None:
    """A name that is not UTF-8, in a folder of such a name, and one with a line break."""
    raw = (pictures / "1.png").read_bytes()
    for name in (b"\xe9/\xff%41.png", b"a\nb.png"):
        path = Path(os.fsdecode(os.fsencode(pictures) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    progress = bulk(pictures)
    assert (progress.rows, progress.failed) == (11, 0)
    assert {r"\xe9/\xff%41.png", "a\nb.png"} < {row["name"] for row in rows_of()}


def test_broken_links_and_truncated_pictures(bulk: Bulk, pictures: Path, tmp_path: Path, rows_of: Rows) -> None:
    """clip-retrieval#257, rclip#282: half a picture among good ones; the names of the others stay theirs."""
    cv2 = pytest.importorskip("cv2")
    good = {row["name"]: row["embedding"] for row in (bulk(pictures, name="good"), rows_of("good"))[1]}
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    raw = cv2.imencode(".jpg", noise)[1].tobytes()
    (pictures / "1b.jpg").write_bytes(raw[: len(raw) // 2])
    (pictures / "2b.png").symlink_to(tmp_path / "nowhere.png")
    assert bulk(pictures).rows == 9
    assert {row["name"]: row["embedding"] for row in rows_of()} == good


def test_a_source_that_is_named_twice(bulk: Bulk, pictures: Path) -> None:
    """A folder and a part of it are refused: their files would have two rows."""
    for second in (pictures / "sub", pictures / "sub" / "7.png", pictures / "sub" / ".."):
        with pytest.raises(UsageError, match=r"a part of|named twice"):
            bulk(pictures, second)


def test_an_update_knows_a_file_under_another_source(bulk: Bulk, pictures: Path) -> None:
    """A part of what was listed brings nothing new."""
    bulk(pictures)
    assert bulk(pictures / "sub", update=True).rows == 0


def test_a_shard_in_which_everything_failed_can_be_read(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """img2dataset#174: numbers without a gap, and a data set that opens as one."""
    for n in range(4):
        (pictures / f"{n}.png").write_bytes(b"x")
    bulk(pictures)
    table = pyarrow().parquet.read_table(tmp_path / "store" / "rows")
    assert table.num_rows == 5


def test_places_next_to_the_date_line() -> None:
    """GeoParquet: a window's box does not go around the earth."""
    place = window_place(Window(0, 0, 1000, 1000, (834_000.0, 1.0, 0.0, 10_000.0, 0.0, -1.0), 32660))
    assert place is not None
    lons = [corner[0] for corner in place.corners]
    assert max(lons) - min(lons) < 0.01
