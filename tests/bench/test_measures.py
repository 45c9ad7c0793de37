"""The measures that need no peer: stream, start, memory, match, search, growth."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import numpy as np
import pytest

from overflight.bench.commands.bench import command
from overflight.bench.energy import Meter
from overflight.bench.match import rank
from overflight.bench.row import read
from overflight.bench.stream import measure
from overflight.runtime.bundle import Bundle


def bench(*arguments: object) -> str:
    done = click.testing.CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_stream_is_split_by_stage(colour_bundle: Bundle) -> None:
    """Every stage of every frame; the parts fit into the whole."""
    rows = {row.subject: row for row in measure(colour_bundle.directory, frames=12, size="64x48", threads=1)}
    assert set(rows) == {"resize", "engine", "match", "overhead", "age"}
    assert {len(row.samples) for row in rows.values()} == {10}
    parts = np.asarray(rows["resize"].samples) + np.asarray(rows["match"].samples)
    assert np.median(rows["overhead"].samples) >= np.median(parts)
    assert rows["age"].figures["observed"] == 12


def test_a_camera_has_an_age_and_no_overhead(colour_bundle: Bundle) -> None:
    """Waiting for a frame is no cost."""
    rows = {row.subject: row for row in measure(colour_bundle.directory, fps=100, frames=12, size="64x48", threads=1)}
    assert "overhead" not in rows
    assert min(rows["age"].samples) > 0


def test_sustained_work_ends_on_time_and_tells_its_meter(colour_bundle: Bundle) -> None:
    """Where nothing measures power, that is what it says."""
    rows = measure(colour_bundle.directory, size="64x48", threads=1, seconds=1.0)
    assert rows[0].measure == "sustained"
    assert rows[0].settings["meter"]
    assert ("joules" in rows[0].figures) == ("not available" not in str(rows[0].settings["meter"]))


def test_a_start_and_a_flights_memory_are_measured(colour_bundle: Bundle, tmp_path: Path) -> None:
    """Through the command line, as JSON lines and as kept records."""
    at = ["--bundle", colour_bundle.directory, "--threads", "1", "--out", tmp_path / "a.jsonl", "--json"]
    start = json.loads(bench("start", "--rounds", "1", *at))
    assert start["samples"][0] > 10e6
    memory = json.loads(bench("memory", "--frames", "60", "--size", "64x48", *at))
    assert memory["unit"] == "bytes"
    assert memory["figures"]["peak_bytes"] > 10e6
    assert [row.measure for row in read(tmp_path / "a.jsonl")] == ["start", "memory"]


def test_growth_is_measured(colour_bundle: Bundle) -> None:
    """Labels, embeddings, batches and sides, each in turns."""
    plan = ["--rounds", "2", "--seconds", "0.001", "--json"]
    match = bench("match", "--bundle", colour_bundle.directory, "--labels", 10, "--labels", 100, *plan)
    assert [json.loads(line)["settings"]["labels"] for line in match.splitlines()] == [10, 100]
    search = bench("search", "--count", 20, "--count", 200, "--width", 8, *plan)
    assert [json.loads(line)["settings"]["count"] for line in search.splitlines()] == [20, 200]
    at = ["--bundle", colour_bundle.directory, "--threads", "1"]
    grown = bench("grow", *at, "--batch", 1, "--batch", 4, "--side", 64, "--side", 1200, *plan).splitlines()
    assert [json.loads(line)["settings"].get("tiles") for line in grown] == [None, None, 1, 4]


def test_ranking_finds_the_nearest() -> None:
    """Against a plain product."""
    dice = np.random.default_rng(0)
    vectors = dice.standard_normal((10_000, 16)).astype(np.float16)
    query = dice.standard_normal(16).astype(np.float32)
    expected = np.argsort(-(vectors.astype(np.float32) @ query))[:10]
    assert rank(vectors, query).tolist() == expected.tolist()


def test_rapl_is_read_and_runs_over(tmp_path: Path) -> None:
    """The counter's range is 1000: from 900 on to 100 is 201 microjoules."""
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text("1000\n")
    (zone / "energy_uj").write_text("900\n")
    meter = Meter(tmp_path)
    meter.start()
    (zone / "energy_uj").write_text("100\n")
    drawn = meter.stop()
    assert drawn.joules == pytest.approx(201e-6)
    assert drawn.meter == "RAPL packages"
    assert drawn.throttled == "not available"


@pytest.mark.parametrize("name", sorted(command.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    """The first line is a sentence, an example follows."""
    text = command.commands[name].help or ""
    assert text.splitlines()[0].endswith((".", "?"))
    assert f"overflight bench {name}" in text
