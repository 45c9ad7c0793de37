"""Files of the field station, made to crash or stall it: map tiles, boxes, lists of URLs, reviews."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from overflight.runtime.errors import OverflightError, UsageError
from overflight.station.bulk.urls import read_list
from overflight.station.regions import read_boxes
from overflight.station.review.store import _reviews
from overflight.station.serve import tile_files
from overflight.station.serve.endpoint import MOST_REVIEW_BYTES, RefusedError
from overflight.station.serve.reviewing import _unpack

TABLES = (
    "CREATE TABLE metadata (name TEXT, value TEXT); INSERT INTO metadata VALUES ('format', 'png');"
    "CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data);"
)


def mbtiles(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.mark.parametrize(
    "values", ["0, 0, 0, 9000000000000", "0, 0, 0, 'text'", "NULL, NULL, NULL, x'89504e47'", "0.5, 'a', 0, NULL"]
)
def test_a_tile_that_is_no_bytes_is_refused(values: str, tmp_path: Path) -> None:
    """A number as the tile is not an amount of memory."""
    path = mbtiles(tmp_path / "a.mbtiles", f"{TABLES} INSERT INTO tiles VALUES ({values})")
    with pytest.raises(UsageError):
        tile_files.describe_tiles(path)
    assert tile_files._mbtile(path, 0, 0, 0) is None


def test_a_view_whose_query_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are usual in such files."""
    monkeypatch.setattr(tile_files, "QUERY_S", 0.1)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i, i, x'00' FROM n"
    view = f"DROP TABLE tiles; CREATE VIEW tiles (zoom_level, tile_column, tile_row, tile_data) AS {endless}"
    with pytest.raises(UsageError, match="interrupted"):
        tile_files.describe_tiles(mbtiles(tmp_path / "a.mbtiles", f"{TABLES} {view}"))


def test_a_tile_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    """A directory, too."""
    with pytest.raises(ValueError, match="once unpacked"):
        tile_files._inflated(gzip.compress(bytes(tile_files.MOST_INFLATED_BYTES + 1)))
    pytest.importorskip("pmtiles")
    from pmtiles.tile import serialize_header

    whole = gzip.compress(bytes(64 << 20))
    names = ("metadata", "leaf_directory", "tile_data")
    header = serialize_header(
        {f"{name}_{what}": 0 for name in names for what in ("offset", "length")}
        | {"root_offset": 127, "root_length": len(whole), "addressed_tiles_count": 1, "tile_entries_count": 1}
        | {"tile_contents_count": 1, "clustered": True, "min_zoom": 0, "max_zoom": 0, "center_zoom": 0}
        | {f"{edge}_{axis}_e7": 0 for edge in ("min", "max", "center") for axis in ("lon", "lat")}
        | _kinds()
    )
    (tmp_path / "a.pmtiles").write_bytes(header + whole)
    with pytest.raises(OverflightError, match="once unpacked"):
        tile_files._pmtile(tmp_path / "a.pmtiles", 0, 0, 0)


def _kinds() -> dict[str, object]:
    from pmtiles.tile import Compression, TileType

    return {
        "internal_compression": Compression.GZIP,
        "tile_compression": Compression.NONE,
        "tile_type": TileType.PNG,
        "version": 3,
    }


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"images": "\xff"}', b'{"a":' * 50_000, b"[1e999]", b"null", b""]
)
def test_boxes_that_cannot_be_read_are_a_usage_error(content: bytes, tmp_path: Path) -> None:
    """Deep nesting and wrong text among them."""
    (tmp_path / "boxes.json").write_bytes(content)
    with pytest.raises(UsageError):
        read_boxes(tmp_path / "boxes.json", tmp_path / "a.jpg")


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    """It is not read whole."""
    (tmp_path / "list.txt").write_text("a.jpg\n" + "b" * 1_000_000)
    with pytest.raises(UsageError, match="a line of more than"):
        list(read_list(tmp_path / "list.txt"))


def test_reviews_that_are_hostile_cost_nothing(tmp_path: Path) -> None:
    """A bomb and a foreign path are refused or passed over; a deep line is skipped and the next one is read."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.jsonl", b"x")
        archive.writestr("bomb.jsonl", bytes(MOST_REVIEW_BYTES + 1))
    with pytest.raises(RefusedError):
        _unpack(packed.getvalue(), "reviews.zip", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "one.jsonl").write_bytes(b'{"x":' + b"[" * 100_000 + b"\n\xff\xfe\n{}\n")
    assert list(_reviews(tmp_path)) == []
