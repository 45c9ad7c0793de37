"""What comes of a store: the plan before it, the summary page, and a flight of an archive.

Covers: station/bulk/plan.py, station/bulk/summary.py, station/bulk/to_archive.py, station/commands/bulk.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.station.archive import Archive
from overflight.station.bulk import BulkOptions, BulkStore
from overflight.station.bulk.outcome import Outcome
from overflight.station.bulk.plan import BulkPlan, plan
from overflight.station.bulk.run import BulkProgress
from overflight.station.bulk.shard import ShardTask, embed_shard
from overflight.station.bulk.summary import make_summary, summarise, write_summary
from overflight.station.bulk.to_archive import add_to_archive
from overflight.station.commands.bulk import command

Bulk = Callable[..., BulkProgress]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run shards in this process: starting a worker takes a second."""

    def run(tasks: Iterator[ShardTask], workers: int) -> Iterator[Outcome]:
        for task in tasks:
            yield Outcome(task.shard, embed_shard(task))

    for module in ("run", "plan"):
        monkeypatch.setattr(f"overflight.station.bulk.{module}.run_local", run)


def test_a_plan_scales_its_sample(pictures: Path, colour_bundle: Bundle) -> None:
    """Twice the nodes take half the time; a count scales hours, disk and bytes."""
    options = BulkOptions(bundle=colour_bundle.directory, workers=1)
    found: BulkPlan = plan([str(pictures)], options, [1, 2], count=9_000_000)
    assert (found.files, found.listed_rows, found.rows, found.sampled_rows) == (9, 9, 9_000_000, 9)
    one, two = found.nodes
    assert one.hours == pytest.approx(9_000_000 / found.rate / 3600 + found.start_s / 3600)
    assert two.hours == pytest.approx((one.hours + found.start_s / 3600) / 2)
    assert found.disk_gb == pytest.approx(9_000_000 * found.bytes_per_row / 1e9)
    assert found.low_hours <= found.high_hours


def test_a_plan_of_nothing_readable_says_why(tmp_path: Path, colour_bundle: Bundle) -> None:
    """Sources that hold nothing are a usage error."""
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError):
        plan([str(tmp_path)], BulkOptions(bundle=colour_bundle.directory), [1])


def test_the_summary_counts_and_escapes(bulk: Bulk, pictures: Path, tmp_path: Path) -> None:
    """Failed files by name, whatever their name holds."""
    (pictures / "<b>&.png").write_bytes(b"no picture")
    (pictures / "z.doc").write_bytes(b"x")
    bulk(pictures)
    store = BulkStore(tmp_path / "store")
    summary = summarise(store)
    assert (summary.rows, summary.shards_done, summary.shards, len(summary.failed)) == (9, 3, 3, 1)
    assert summary.sources[str(pictures), "still"] == [10, 9, 1]
    text = make_summary(store, summary).decode()
    assert "&lt;b&gt;&amp;.png" in text and "<b>&.png" not in text and "http" not in text
    assert "1 files ending in .doc were not read" in text
    assert write_summary(store).read_text() == text


def test_a_store_becomes_a_flight_of_an_archive(bulk: Bulk, write_mosaic: Callable[..., Path], write_picture: Any,
    tmp_path: Path, bundle_with_bank: Bundle) -> None:  # fmt: skip
    """Once, with its labels and places; a store that is not finished is refused."""
    red = write_picture(tmp_path / "in" / "red.png", (250, 30, 30))
    write_mosaic(tmp_path / "in" / "m.tif")
    bulk(red.parent, bundle=bundle_with_bank.directory, gsd_m=0.2, part=(0, 2), shard_rows=16)
    store, archive = BulkStore(tmp_path / "store"), Archive(tmp_path / "archive")
    with pytest.raises(UsageError, match="finish it first"):
        add_to_archive(store, archive)
    bulk(red.parent, bundle=bundle_with_bank.directory, gsd_m=0.2, shard_rows=16)
    flight, new = add_to_archive(store, archive)
    assert new and (flight.name, flight.rows) == ("store", 17)
    assert add_to_archive(store, archive) == (flight, False)
    assert np.allclose(np.linalg.norm(archive.vectors(flight).astype(np.float32), axis=1), 1, atol=1e-3)
    with archive.read() as connection:
        rows = list(connection.execute("SELECT name, label, lat_deg FROM rows ORDER BY id"))
        (places,) = connection.execute("SELECT count(*) FROM places").fetchone()
    assert rows[-1] == ("red.png", "red", None) and rows[0][2] == pytest.approx(37.109, abs=0.01)
    assert places == 16


def test_the_command_runs_resumes_and_reports(pictures: Path, tmp_path: Path, colour_bundle: Bundle) -> None:
    """Exit code 1 with the reason where a file failed; --json is one object; --plan embeds nothing."""
    (pictures / "bad.png").write_bytes(b"no picture")
    given = [str(pictures), "--bundle", str(colour_bundle.directory), "--workers", "1"]
    planned = CliRunner().invoke(command, [*given, "--plan", "--count", "1000000"])
    assert planned.exit_code == 0 and "1,000,000 embeddings" in planned.output and not (tmp_path / "s").exists()
    done = CliRunner().invoke(command, [*given, "--out", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert (answer["rows"], answer["failures"][0]["name"]) == (9, "bad.png")
    assert (tmp_path / "s" / "summary.html").is_file()
    again = CliRunner().invoke(command, ["--out", str(tmp_path / "s"), "--check"])
    assert again.exit_code == 1 and "9 embeddings" in again.output


@pytest.mark.parametrize(
    "arguments", [["x"], ["--plan"], ["x", "--plan", "--nodes", "0"], ["x", "--out", "s", "--shard", "2/2"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str]) -> None:
    """No store, no sources, no nodes, no such part."""
    assert isinstance(CliRunner().invoke(command, arguments).exception, UsageError)
