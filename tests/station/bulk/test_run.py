"""Bulk runs: the same rows on every executor and after every interruption, failures by name, nothing done twice.

Covers: station/bulk/run.py, station/bulk/store.py, station/bulk/shard.py, station/bulk/reading.py
Covers: station/bulk/embedder.py, station/bulk/local.py, station/bulk/outcome.py, station/bulk/fit.py
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import EngineError, MissingError, OverflightError, UsageError
from overflight.runtime.overflight import embed
from overflight.runtime.sources.image import read_image, read_noted
from overflight.runtime.sources.mosaic import Mosaic, View
from overflight.station.bulk import BulkOptions, BulkStore, embed_sources, reading
from overflight.station.bulk.embedder import Embedder
from overflight.station.bulk.fit import fit
from overflight.station.bulk.outcome import MOST_CRASHES, Attempts
from overflight.station.bulk.records import Shard
from overflight.station.bulk.run import BulkProgress, all_failed, parse_part
from overflight.station.bulk.shard import ItemMarks, ShardTask, embed_shard
from overflight.station.bulk.summary import make_summary, summarise

Bulk = Callable[..., BulkProgress]
Rows = Callable[..., list[dict[str, Any]]]
Files = Callable[..., dict[str, bytes]]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run shards in this process: starting a worker takes a second, and two tests below start real ones."""

    def run(tasks: Any, workers: int) -> Any:
        for task in tasks:
            try:
                yield shard_outcome(task)
            except OverflightError as error:
                yield _failed(task, str(error))

    monkeypatch.setattr("overflight.station.bulk.run.run_local", run)
    monkeypatch.setattr(reading, "WAITS_S", (0.0, 0.0))


def shard_outcome(task: ShardTask) -> Any:
    from overflight.station.bulk.outcome import Outcome

    return Outcome(task.shard, embed_shard(task))


def _failed(task: ShardTask, reason: str) -> Any:
    from overflight.station.bulk.outcome import Outcome

    return Outcome(task.shard, None, reason)


def test_rows_equal_single_calls(bulk: Bulk, rows_of: Rows, pictures: Path, colour_bundle: Bundle) -> None:
    """Name, hash and embedding of each picture, in order."""
    assert bulk(pictures).rows == 9
    engine = open_reference(colour_bundle)
    for row in rows_of():
        frame = read_image(pictures / row["name"])
        np.testing.assert_array_equal(row["embedding"], embed(engine, colour_bundle, [frame])[0])
        assert len(row["content_sha256"]) == 64
    engine.close()
    assert [row["name"] for row in rows_of()] == [f"{n}.png" for n in range(6)] + [f"sub/{n}.png" for n in range(6, 9)]


def test_a_manifest_leads_from_the_content_to_the_row(
    bulk: Bulk, rows_of: Rows, pictures: Path, tmp_path: Path
) -> None:
    """Content hash, row group, and the place of the rows."""
    bulk(pictures)
    (first, *_) = BulkStore(tmp_path / "store").records()
    assert [(one.name, one.rows, one.row_group, one.first) for one in first.done] == [
        (f"{n}.png", 1, 0, n) for n in range(4)
    ]
    assert first.done[2].sha256 == rows_of()[2]["content_sha256"]


def test_what_is_done_is_not_done_again(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """The second run reads nothing, also without naming the sources."""
    bulk(pictures)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.parquet")}
    again = bulk(pictures)
    assert (again.shards_before, again.shards_done, again.rows_before) == (3, 0, 9)
    bulk()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.parquet")}


@pytest.mark.parametrize("lost", ["manifest", "torn manifest", "parquet", "torn parquet"])
def test_a_shard_that_is_not_whole_is_made_again(
    bulk: Bulk, files_of: Files, pictures: Path, tmp_path: Path, lost: str
) -> None:
    """Whatever a kill left of it, the rows come out the same."""
    bulk(pictures)
    whole = files_of()
    path = BulkStore(tmp_path / "store").manifest_path(1)
    if "parquet" in lost:
        path = BulkStore(tmp_path / "store").parquet_path(1)
    path.write_bytes(path.read_bytes()[:50]) if "torn" in lost else path.unlink()
    assert bulk(pictures).shards_done == 1
    assert files_of() == whole


def test_a_changed_byte_is_found_by_the_check(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """The size is the same, the SHA-256 is not."""
    bulk(pictures)
    store = BulkStore(tmp_path / "store")
    raw = bytearray(store.parquet_path(2).read_bytes())
    raw[40] ^= 1
    store.parquet_path(2).write_bytes(raw)
    assert store.damaged() == [2]


def test_jobs_of_a_cluster_share_the_shards(bulk: Bulk, files_of: Files, pictures: Path) -> None:
    """``--shard i/N``: each shard once, and the rows of a single run."""
    bulk(pictures, name="whole")
    done = [bulk(pictures, name="parts", part=(index, 2)).shards_done for index in range(2)]
    assert done == [2, 1]
    assert files_of("parts") == files_of("whole")


def test_a_failing_picture_is_tried_three_times_and_named(
    bulk: Bulk, rows_of: Rows, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are embedded."""
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:60])
    tries: list[str] = []

    def counted(path: Path) -> Any:
        tries.append(path.name)
        return read_noted(path)

    monkeypatch.setattr(reading, "read_noted", counted)
    assert bulk(pictures).failed == 1
    assert tries.count("2.png") == 3 and tries.count("1.png") == 1
    (failed,) = all_failed(BulkStore(tmp_path / "store"))
    assert (failed.name, failed.attempts) == ("2.png", 3) and "cut off" in failed.reason
    assert len(rows_of()) == 8


def test_a_picture_that_fails_for_a_moment_changes_nothing(
    bulk: Bulk, files_of: Files, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that hangs: the third attempt answers, and the rows are those of a quiet run."""
    bulk(pictures, name="quiet")
    tries: dict[str, int] = {}

    def flaky(path: Path) -> Any:
        tries[path.name] = tries.get(path.name, 0) + 1
        if tries[path.name] < 3:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read_noted(path)

    monkeypatch.setattr(reading, "read_noted", flaky)
    assert bulk(pictures, name="flaky").failed == 0
    assert files_of("flaky") == files_of("quiet")


def test_what_failed_can_be_tried_again(bulk: Bulk, files_of: Files, pictures: Path) -> None:
    """After a repair the shard is made whole again, and equals one that never failed."""
    bulk(pictures, name="good")
    good = (pictures / "2.png").read_bytes()
    time = (pictures / "2.png").stat()
    (pictures / "2.png").write_bytes(bytes(len(good)))
    os.utime(pictures / "2.png", ns=(time.st_atime_ns, time.st_mtime_ns))
    assert bulk(pictures).failed == 1
    assert bulk(pictures).shards_done == 0
    (pictures / "2.png").write_bytes(good)
    os.utime(pictures / "2.png", ns=(time.st_atime_ns, time.st_mtime_ns))
    assert bulk(pictures, retry_failed=True).shards_done == 1
    assert files_of() == files_of("good")


def test_a_file_that_changes_is_refused_then_updated(bulk: Bulk, rows_of: Rows, pictures: Path, tmp_path: Path,
    write_picture: Callable[..., Path]) -> None:  # fmt: skip
    """Listed, then overwritten: its row would belong to neither. ``--update`` lists it anew, with what is new."""
    bulk(pictures, part=(1, 3))
    write_picture(pictures / "0.png", (1, 2, 3), (50, 50))
    write_picture(pictures / "new.png", (1, 2, 3))
    assert bulk(pictures).failed == 1
    assert "changed since it was listed" in all_failed(BulkStore(tmp_path / "store"))[0].reason
    assert bulk(pictures, update=True).shards_done == 1
    assert [row["name"] for row in rows_of()][-2:] == ["0.png", "new.png"]


def test_other_settings_are_refused(bulk: Bulk, pictures: Path) -> None:
    """Rows of two batch sizes or windows in one store could not be compared."""
    bulk(pictures)
    with pytest.raises(UsageError, match="batch is 8, not 2"):
        bulk(pictures, batch=2)


def test_a_run_without_anything_to_embed_leaves_no_store(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """The settings of a mistaken first command do not bind the next one."""
    with pytest.raises(UsageError, match="no such file"):
        bulk(tmp_path / "none", batch=2)
    assert bulk(pictures, batch=4).shards_done


def test_a_full_disk_stops_the_run_and_it_resumes(
    bulk: Bulk, files_of: Files, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done stays; no half file is left."""
    bulk(pictures, name="whole")
    write, calls = BulkStore.write_rows, []

    def full(store: BulkStore, number: int, table: Any) -> Any:
        calls.append(number)
        if len(calls) == 2:
            monkeypatch.setattr(os, "fsync", _no_space)
        return write(store, number, table)

    with monkeypatch.context() as patch:
        patch.setattr(BulkStore, "write_rows", full)
        with pytest.raises(OverflightError, match=r"No space left.*run the same command again"):
            bulk(pictures)
        monkeypatch.undo()
    assert list(files_of()) == ["000000.parquet"]
    bulk(pictures)
    assert files_of() == files_of("whole")


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_windows_of_a_mosaic_are_placed_and_equal_single_calls(bulk: Bulk, rows_of: Rows, tmp_path: Path,
    write_mosaic: Callable[..., Path], colour_bundle: Bundle) -> None:  # fmt: skip
    """A row each, with its ground as GeoParquet."""
    path = write_mosaic(tmp_path / "m.tif")
    assert bulk(path, gsd_m=0.2).rows == 16
    rows = rows_of()
    engine = open_reference(colour_bundle)
    mosaic = Mosaic(path, view=View(64))
    frames = list(mosaic.frames())
    mosaic.close()
    for row, frame in zip(rows, frames, strict=True):
        np.testing.assert_array_equal(row["embedding"], embed(engine, colour_bundle, [frame])[0])
        assert row["name"] == f"m.tif@{row['left']},{row['top']}"
    engine.close()
    assert rows[0]["lat_deg"] == pytest.approx(37.1094, abs=1e-3)
    assert rows[0]["geometry"][:5] == b"\x01\x03\x00\x00\x00"


def test_a_mosaic_with_a_damaged_piece_keeps_the_other_windows(bulk: Bulk, tmp_path: Path,
    write_mosaic: Callable[..., Path]) -> None:  # fmt: skip
    """Its row of windows is listed as failed, with the number of rows that are kept."""
    path = write_mosaic(tmp_path / "m.tif")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - 3000])
    assert bulk(path, gsd_m=0.2).rows == 15
    (failed,) = all_failed(BulkStore(tmp_path / "store"))
    assert failed.rows == 3 and "cannot be decoded" in failed.reason


def test_a_flights_embeddings_are_taken_as_they_are(bulk: Bulk, rows_of: Rows, fly_over: Callable[..., Path]) -> None:
    """Nothing is embedded again; a frame's number is part of its name."""
    flight = fly_over("first", [(250, 30, 30), (30, 250, 30)])
    assert bulk(flight).rows == 2
    assert [row["name"] for row in rows_of()] == ["first#0", "first#1"]
    assert np.linalg.norm(rows_of()[0]["embedding"]) == pytest.approx(1, abs=1e-3)


def test_an_item_that_ends_workers_is_left_out_in_the_end(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """Once before items are noted and twice after: then it is named and passed over."""
    bulk(pictures, part=(1, 3))
    store = BulkStore(tmp_path / "store")
    first = next(iter(store.shards()))
    for _ in range(2):
        assert ItemMarks(store, 0).begin(first.items[1])  # and the worker ends here
    record = embed_shard(ShardTask(str(store.directory), store.settings(), first, 1, careful=True))
    assert [one.name for one in record.failed] == ["1.png"]
    assert "ended three times" in record.failed[0].reason and record.rows == 3
    assert not list(store.directory.rglob("*.reading"))


def test_a_shard_on_which_every_worker_ends_is_given_up(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """Twelve times, then the run says why."""
    bulk(pictures)
    attempts, task = Attempts(), ShardTask("", BulkStore(tmp_path / "store").settings(), Shard(7, ()), 1)
    for _ in range(MOST_CRASHES - 1):
        (again,) = attempts.crashed(task)
        assert again.careful
    assert attempts.crashed(task) == []
    assert "shard 7: 12 workers ended" in attempts.given_up(task).reason


def test_another_machine_needs_the_same_engine(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """An engine of another hash would give other rows."""
    bulk(pictures)
    settings = BulkStore(tmp_path / "store").settings()
    with pytest.raises(EngineError, match="which is the same everywhere"):
        Embedder(msgspec.structs.replace(settings, engine_sha256="f" * 64), 1)
    with pytest.raises(UsageError, match="another bundle"):
        Embedder(msgspec.structs.replace(settings, bundle_sha256="f" * 64), 1)


def test_workers_fit_cores_and_memory(bulk: Bulk, pictures: Path, tmp_path: Path, colour_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """One a core, fewer where memory is short, none where not even one fits."""
    bulk(pictures)
    settings = BulkStore(tmp_path / "store").settings()
    monkeypatch.setattr("overflight.station.bulk.fit.cores_here", lambda: 8)
    one = fit(colour_bundle, settings, 1).worker_bytes
    for usable, wanted in ((100 * one, (8, 1)), (3 * one + (257 << 20), (3, 2)), (0, (8, 1))):
        monkeypatch.setattr("overflight.station.bulk.fit.usable_here", lambda usable=usable: (usable, 0))
        fitted = fit(colour_bundle, settings)
        assert (fitted.workers, fitted.threads) == wanted
    monkeypatch.setattr("overflight.station.bulk.fit.usable_here", lambda: (one, 0))
    with pytest.raises(MissingError, match="smaller tower"):
        fit(colour_bundle, settings)


@pytest.mark.parametrize("text", ["8/8", "-1/2", "a/b", "1", "0/0"])
def test_a_wrong_part_is_a_usage_error(text: str) -> None:
    """i from 0 to N - 1."""
    with pytest.raises(UsageError, match="--shard"):
        parse_part(text)


def test_both_of_two_first_runs_use_one_listing(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """The one that links its file first wins; the other reads it."""
    bulk(pictures, part=(0, 3))
    store = BulkStore(tmp_path / "store")
    before = (store.directory / "shards.jsonl").read_bytes()
    store.write_listing([])
    assert (store.directory / "shards.jsonl").read_bytes() == before
    assert (store.directory / "shards.jsonl").stat().st_mode & 0o077 == 0  # it may hold signed URLs
    assert not list(store.directory.rglob(".partial-*"))


def test_what_a_process_left_that_died_late_is_removed(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """A killed process may end only while the next run is under way."""
    bulk(pictures, part=(0, 2))
    store = BulkStore(tmp_path / "store")
    with subprocess.Popen(["sleep", "60"]) as late:
        left = (
            store.directory
            / "rows"
            / f".partial-{os.uname().nodename.replace('-', '_')}-000001.parquet-{late.pid}-00000000"
        )
        left.touch()

        def end(progress: BulkProgress) -> None:
            assert left.exists() or late.poll() is not None  # while it lives, its file is its own
            late.kill()
            late.wait()

        options = BulkOptions(bundle=Path(store.settings().bundle), workers=1, shard_rows=4)
        embed_sources([], store.directory, options, end)
    assert not left.exists()


def test_windows_needs_neither_signals_nor_the_resource_module(
    bulk: Bulk, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak of memory is not known there, and what a killed process left goes after a day."""
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(os, "kill", None)
    monkeypatch.delattr(os, "uname")
    bulk(pictures, part=(0, 2))
    store = BulkStore(tmp_path / "store")
    old, new = (store.directory / f".partial-{socket.gethostname().replace('-', '_')}-x-1-{n}" for n in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    bulk()
    assert not old.exists() and new.exists()
    assert {record.costs.peak_bytes for record in store.records()} == {0}
    assert "<dd>not known</dd>" in make_summary(store, summarise(store)).decode()
