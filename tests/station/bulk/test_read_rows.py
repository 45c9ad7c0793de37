"""Hostile and damaged Parquet files of a store are refused in one line, within bounded time and memory.

Covers: station/bulk/parquet_pages.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError, UsageError
from overflight.station.archive import Archive
from overflight.station.bulk import BulkStore
from overflight.station.bulk.read_rows import read_rows
from overflight.station.bulk.rows import corners_of, pyarrow
from overflight.station.bulk.to_archive import add_to_archive

Bulk = Callable[..., Any]
_READ = """
import resource, sys
from overflight.runtime.errors import OverflightError
from overflight.station.bulk import BulkStore
from overflight.station.bulk.read_rows import read_rows
store = BulkStore(sys.argv[1])
try:
    for _ in read_rows(store.parquet_path(0), store.record(0), store.settings()):
        pass
    print("read")
except OverflightError as error:
    print("refused", error)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.fixture
def store(bulk: Bulk, pictures: Path, tmp_path: Path) -> BulkStore:
    """Return a store of one shard with nine rows."""
    bulk(pictures, shard_rows=64)
    return BulkStore(tmp_path / "store")


def write(store: BulkStore, change: Callable[[Any], Any], **how: Any) -> None:
    """Replace the shard's table, and state the new file's size and hash in its manifest, as an attacker would."""
    path = store.parquet_path(0)
    table = change(pyarrow().parquet.read_table(path))
    pyarrow().parquet.write_table(table, path, **how)
    claim(store)


def claim(store: BulkStore) -> None:
    """State the file's size and hash in its manifest."""
    path, manifest = store.parquet_path(0), store.manifest_path(0)
    record = msgspec.json.decode(manifest.read_bytes())
    record |= {"file_bytes": path.stat().st_size, "file_sha256": hash_file(path)}
    manifest.write_bytes(msgspec.json.encode(record))


def read(store: BulkStore) -> int:
    """Return the number of rows of the first shard."""
    record = store.record(0)
    assert record is not None
    return sum(len(rows) for rows, _ in read_rows(store.parquet_path(0), record, store.settings()))


def column(table: Any, name: str, values: Any) -> Any:
    """Return the table with another column."""
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def test_a_flipped_byte_is_found(store: BulkStore, tmp_path: Path) -> None:
    """In an embedding it would only have moved a picture in the search."""
    assert read(store) == 9
    path = store.parquet_path(0)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(OverflightError, match="altered since it was written"):
        read(store)
    with pytest.raises(OverflightError):
        add_to_archive(store, Archive(tmp_path / "archive"))


def test_a_torn_or_foreign_file_is_refused(store: BulkStore) -> None:
    """A footer cut off, one that promises 2 GB, and bytes that were never Parquet."""
    path = store.parquet_path(0)
    good = path.read_bytes()
    for raw in (good[:-8], good[: len(good) // 2], good[:-8] + b"\xff\xff\xff\x7fPAR1", b"PAR1", b"", b"PAR1" * 100):
        path.write_bytes(raw)
        claim(store)
        with pytest.raises(OverflightError, match="cannot be read"):
            read(store)


def test_other_columns_rows_and_numbers_are_refused(store: BulkStore) -> None:
    """What a reader would meet as a KeyError, as rows without end, or as embeddings that are no numbers."""
    arrow = pyarrow()
    good = store.parquet_path(0).read_bytes()
    for change in (
        lambda table: table.drop_columns(["embedding"]),
        lambda table: table.rename_columns([*table.column_names[:-1], "vector"]),
        lambda table: table.slice(0, 3),
        lambda table: arrow.concat_tables([table] * 50),
        lambda table: table.append_column("more", arrow.nulls(len(table), arrow.int8())),
        lambda table: column(table, "embedding", arrow.array([None] * 9, table.schema.field("embedding").type)),
        lambda table: column(
            table,
            "embedding",
            arrow.FixedSizeListArray.from_arrays(
                arrow.array(np.full(9 * store.settings().width, np.nan, np.float16)), store.settings().width
            ).cast(table.schema.field("embedding").type),
        ),
    ):
        store.parquet_path(0).write_bytes(good)
        write(store, change)
        with pytest.raises(OverflightError):
            read(store)


@pytest.mark.parametrize("claimed", [True, False])
def test_a_bomb_costs_no_memory(store: BulkStore, claimed: bool) -> None:
    """A name of 500 MB in a file of 50 kB; ``claimed`` says whether the footer states how large it is."""
    arrow = pyarrow()
    names = arrow.array(["a" * 500_000_000, *"abcdefgh"])
    write(store, lambda table: column(table, "name", names), compression="zstd")
    path = store.parquet_path(0)
    assert path.stat().st_size < 200_000
    if not claimed:
        raw = path.read_bytes()
        size = arrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
        assert raw.count(varint(size)) >= 1
        path.write_bytes(raw.replace(varint(size), varint(1000, len(varint(size)))))
        claim(store)
    ended = subprocess.run(
        [sys.executable, "-c", _READ, str(store.directory)], capture_output=True, text=True, timeout=60, check=False
    )
    said, peak_mb = ended.stdout.split("\n")[:2]
    assert said.startswith("refused"), ended.stdout + ended.stderr
    assert int(peak_mb) < 400


def varint(value: int, length: int = 0) -> bytes:
    """Return a number as Thrift's compact protocol writes it, with as many bytes as were asked for."""
    zigzag = 2 * value
    out: list[int] = []
    while zigzag or not out or len(out) < length:
        out.append(zigzag & 127)
        zigzag >>= 7
    return bytes([*(byte | 128 for byte in out[:-1]), out[-1]])


@pytest.mark.parametrize("wkb", [b"", b"\x01", b"\x01\x03\0\0\0\x01\0\0\0\xff\xff\xff\x7f", b"\x00" * 93, b"\x01" * 93])
def test_a_geometry_that_is_none_has_no_corners(wkb: bytes) -> None:
    """It is not one of this package's polygons."""
    assert corners_of(wkb) == ()


def test_a_store_is_not_added_with_another_tower(bulk: Bulk, pictures: Path, tmp_path: Path,
    bundle_with_bank: Any) -> None:  # fmt: skip
    """Its labels would be decided from vectors of another space."""
    bulk(pictures, bundle=bundle_with_bank.directory, shard_rows=64)
    store = BulkStore(tmp_path / "store")
    settings = store.directory / "bulk.json"
    before = store.settings().tower
    settings.write_text(settings.read_text().replace(before, "0" * len(before)))
    manifest = msgspec.json.decode(store.manifest_path(0).read_bytes())
    from overflight.station.bulk.store import settings_key

    manifest["settings"] = settings_key(store.settings())
    store.manifest_path(0).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(UsageError, match="was embedded with 000000000000"):
        add_to_archive(BulkStore(tmp_path / "store"), Archive(tmp_path / "archive"))
