"""Listing: every kind of source, in a stable order, and what is refused or passed over by name.

Covers: station/bulk/listing.py, station/bulk/urls.py, station/bulk/records.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from overflight.runtime.errors import MissingError, SourceError, UsageError
from overflight.station.bulk.listing import Listing, in_shards, walk
from overflight.station.bulk.records import SCHEMA, Item, Settings
from overflight.station.bulk.urls import fetched, is_url, list_urls, read_list

SETTINGS = Settings(SCHEMA, "", "", "", "", 3, 32, "onnxruntime-cpu", "fp32", "", 4, 4)


def names(*sources: str | Path) -> list[str]:
    return [item.name for item in Listing(SETTINGS).items([str(source) for source in sources])]


def test_a_folder_is_walked_in_order_of_names(pictures: Path) -> None:
    """Subfolders too, whatever order the file system has."""
    assert names(pictures) == [f"{n}.png" for n in range(6)] + [f"sub/{n}.png" for n in range(6, 9)]


def test_hidden_files_and_folders_are_left_out(pictures: Path, write_picture: Callable[..., Path]) -> None:
    """AppleDouble files and thumbnails folders are no pictures of a survey (img2dataset, torchvision's ImageFolder)."""
    for name in ("._0.png", ".DS_Store", ".thumbnails/0.png"):
        write_picture(pictures / name, (0, 0, 0)) if name.endswith("png") else (pictures / name).write_bytes(b"x")
    assert len(names(pictures)) == 9


def test_a_loop_of_links_is_entered_once(pictures: Path) -> None:
    """A link to the parent folder would be walked until the path is too long."""
    (pictures / "sub" / "again").symlink_to(pictures)
    (pictures / "self").symlink_to(pictures / "self")  # a link to itself is no file
    listing = Listing(SETTINGS)
    assert len([item for item in listing.items([str(pictures)]) if item.kind == "still"]) == 9


def test_same_names_in_two_folders_stay_apart(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    """Two cameras both write DJI_0001.JPG."""
    for camera in ("a", "b"):
        write_picture(tmp_path / camera / "DJI_0001.png", (9, 9, 9))
    items = list(Listing(SETTINGS).items([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert len({(item.source, item.name) for item in items}) == 2
    assert names(tmp_path) == ["a/DJI_0001.png", "b/DJI_0001.png"]


@pytest.mark.parametrize("name", ["Schloß am See.png", "停车场.png", "a b%20c#1.png", "q?x=1.png"])
def test_names_of_every_script_are_kept(tmp_path: Path, name: str, write_picture: Callable[..., Path]) -> None:
    """Spaces, per cent and question marks included: a path is not a URL."""
    write_picture(tmp_path / "in" / name, (1, 2, 3))
    assert names(tmp_path / "in") == [name]


def test_a_name_that_is_not_utf_8_is_printable(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    """Parquet's strings are UTF-8; the bytes are shown."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write_picture(path, (1, 2, 3))
    assert names(tmp_path) == ["caf\\xe9.png"]


def test_empty_files_and_dead_links_are_refused_by_name(pictures: Path) -> None:
    """img2dataset wrote empty rows for files of no bytes."""
    (pictures / "empty.jpg").touch()
    (pictures / "gone.jpg").symlink_to(pictures / "nowhere.jpg")
    (pictures / "notes.txt").write_text("x")
    listing = Listing(SETTINGS)
    assert len(list(listing.items([str(pictures)]))) == 9
    assert sorted(one.name for one in listing.refused) == ["empty.jpg", "gone.jpg"]
    assert listing.passed_over == {".txt": 1}


def test_a_mosaic_is_cut_by_its_ground_sample_distance(tmp_path: Path, write_mosaic: Callable[..., Path]) -> None:
    """0.1 m a pixel, a tower of 32 pixels and 0.2 m an input pixel: windows of 64 pixels, a row of them an item."""
    path = write_mosaic(tmp_path / "m.tif")
    items = list(Listing(msgspec.structs.replace(SETTINGS, gsd_m=0.2)).items([str(path)]))
    assert [(item.kind, item.window_px, item.first, item.count) for item in items] == [
        ("windows", 64, 4 * row, 4) for row in range(4)
    ]
    assert len({item.sha256 for item in items}) == 1


def test_a_mosaic_of_unknown_scale_is_shrunk_as_tiles_are(tmp_path: Path, write_mosaic: Callable[..., Path]) -> None:
    """Half the pixels in each direction at the most."""
    path = write_mosaic(tmp_path / "m.tif", epsg=None)
    assert {item.window_px for item in Listing(SETTINGS).items([str(path)])} == {64}


def test_a_list_holds_paths_and_urls(tmp_path: Path, pictures: Path) -> None:
    """Paths are relative to the list; comments and a byte order mark are no lines."""
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# survey\npictures/0.png\n\nmemory://b/1.png\npictures/none.png\n", encoding="utf-8")
    listing = Listing(SETTINGS)
    assert [item.where for item in listing.items([str(path)])] == [str(pictures / "0.png"), "memory://b/1.png"]
    assert [one.name for one in listing.refused] == ["pictures/none.png"]


def test_credentials_of_a_url_are_not_shown() -> None:
    """A signed URL is fetched as it is, and named without its signature."""
    where = "https://me:secret@host/a.png?X-Amz-Signature=0a1b2c3d4e5f6a7b8c9d"
    (item,) = list_urls(where, where)
    assert item.where == where
    assert "secret" not in item.name + item.source and "0a1b2c3d" not in item.name + item.source


def test_an_object_store_is_listed_and_fetched() -> None:
    """A folder and a pattern; what is no picture is left out."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("b/2.png", "b/1.png", "b/notes.txt", "b/deep/3.png"):
        memory.pipe(f"/bulk/{name}", b"bytes of " + name.encode())
    assert [item.where for item in list_urls("memory://bulk/b/", "s")] == [
        "memory:///bulk/b/1.png", "memory:///bulk/b/2.png", "memory:///bulk/b/deep/3.png",
    ]  # fmt: skip
    assert len(list(list_urls("memory://bulk/b/*.png", "s"))) == 2
    with fetched("memory://bulk/b/1.png") as path:
        assert path.read_bytes() == b"bytes of b/1.png"
    with pytest.raises(SourceError, match="cannot be fetched"), fetched("memory://bulk/none.png"):
        pass


def test_a_video_behind_a_url_and_an_unknown_scheme_are_refused() -> None:
    """Each in one line that says what to do."""
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match="copy a video or mosaic first"):
        list(list_urls("s3://bucket/a.mp4", "s"))
    with pytest.raises(UsageError, match="expected a URL that fsspec knows"), fetched("nonsense://a/b.png"):
        pass
    assert is_url("s3://bucket/x") and not is_url("C:/x.png") and not is_url("/a/b")


def test_a_missing_file_system_names_its_package() -> None:
    """fsspec says which package brings s3:// and the like."""
    pytest.importorskip("fsspec")
    if find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed")
    with pytest.raises(MissingError, match="s3fs"), fetched("s3://bucket/a.png"):
        pass


def test_a_list_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A spreadsheet saved as .txt."""
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match="not UTF-8"):
        list(read_list(tmp_path / "l.txt"))


def test_nothing_to_embed_is_a_usage_error(tmp_path: Path) -> None:
    """An empty folder, and a path that does not exist."""
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            names(source)


def test_shards_hold_whole_items() -> None:
    """About the wanted number of rows; an item of unknown length stands alone."""

    def item(count: int) -> Item:
        return Item("windows", "s", "n", "w", count=count)

    shards = in_shards([item(1), item(1), item(3), item(0), item(1), item(9)], 4)
    assert [[one.count for one in shard.items] for shard in shards] == [[1, 1], [3], [0], [1], [9]]


def test_a_flight_inside_a_folder_is_one_item(fly_over: Callable[..., Path]) -> None:
    """Its own files are not taken for pictures."""
    flight = fly_over("first", [(255, 0, 0)])
    assert list(walk(flight.parent, lambda path, reason: None)) == [flight / "flight.json"]
    (item,) = Listing(SETTINGS).items([str(flight.parent)])
    assert (item.kind, item.name, item.count) == ("flight", flight.name, 0)
