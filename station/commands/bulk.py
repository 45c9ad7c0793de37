"""``overflight bulk``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overflight.runtime.finite import Finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.station.bulk.plan import BulkPlan
    from overflight.station.bulk.run import BulkOptions, BulkProgress
    from overflight.station.bulk.store import BulkStore

_PATH: Any = click.Path(path_type=Path)
_TARGETS = click.Choice(["onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu", "tensorrt"])


@click.command()
@click.argument("sources", nargs=-1)
@click.option("--out", type=_PATH, help="The store: a folder that is created if missing, and resumed if not finished.")
@click.option("--archive", type=_PATH, help="Add the finished store to this archive.")
@click.option("--plan", "planned", is_flag=True, help="Measure a sample and print hours and disk; embed nothing else.")
@click.option("--nodes", default="1,2,4,8", show_default=True, help="For --plan: numbers of machines like this one.")
@click.option("--count", type=click.IntRange(1), help="For --plan: so many embeddings of this kind.")
@click.option("--shard", "part", metavar="i/N", default="0/1", help="Only the shards of job i of N, i from 0 to N-1.")
@click.option("--ray", metavar="ADDRESS", help="Run the shards on the Ray cluster at ADDRESS, or 'auto'.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Worker processes.  [default: fitted to this machine]")
@click.option("--threads", type=click.IntRange(1, 1024), help="Engine threads of a worker.  [default: fitted]")
@click.option(
    "--batch", type=click.IntRange(1, 4096), help="Frames in one call of the engine.  [default: the engine's]"
)
@click.option(
    "--engine", "target", type=_TARGETS, help="The engine.  [default: the fastest that passed its check here]"
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="The engine's precision.")
@click.option("--bundle", type=_PATH, help="A bundle.  [default: the default model's]")
@click.option("--gsd", "gsd_m", type=Finite(0.001, 1000), help="Mosaics: metres of ground for an input pixel.")
@click.option("--window", "window_px", type=click.IntRange(16, 8192), help="Mosaics: side of a window in pixels.")
@click.option("--fps", type=Finite(0, 1000), default=1.0, show_default=True, help="Videos: frames a second; 0: all.")
@click.option(
    "--shard-rows", type=click.IntRange(1, 1_000_000), default=256, show_default=True, help="Rows of a shard."
)
@click.option("--half", is_flag=True, help="Store the embeddings in 16 bits.")
@click.option("--update", is_flag=True, help="List the sources again and embed what is new or has changed.")
@click.option("--retry-failed", is_flag=True, help="Embed the shards again in which something failed.")
@click.option(
    "--check", is_flag=True, help="Compare every finished shard with its SHA-256; damaged ones are made again."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    sources: tuple[str, ...],
    out: Path | None,
    archive: Path | None,
    planned: bool,
    nodes: str,
    count: int | None,
    check: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed many pictures, videos, mosaics and flights into Parquet files.

    SOURCES are folders (with their subfolders), files, flights, GeoTIFF mosaics of any size, URLs that fsspec knows,
    and lists (.txt) of URLs or paths. A run that was killed is resumed with the same command. A file that cannot be
    read is tried three times, then listed; the exit code is 1 when any is. Rows are the same whichever executor made
    them.

    \b
    overflight bulk survey/ --plan --nodes 1,4
    overflight bulk survey/ mosaic.tif --out survey.bulk
    overflight bulk survey/ --out /shared/survey.bulk --shard $SLURM_ARRAY_TASK_ID/16
    """
    chosen = _options(options)
    if planned:
        _plan(sources, chosen, nodes, count, as_json=as_json)
        return
    from overflight.runtime.errors import UsageError

    if out is None:
        raise UsageError("no store; name a folder with --out, or ask for a forecast with --plan")
    _embed(sources, out, archive, chosen, check=check, as_json=as_json)


def _options(options: dict[str, Any]) -> BulkOptions:
    from overflight.station.bulk.run import BulkOptions, parse_part

    return BulkOptions(**{**options, "part": parse_part(options["part"])})


def _embed(
    sources: tuple[str, ...], out: Path, archive: Path | None, options: BulkOptions, *, check: bool, as_json: bool
) -> None:
    from overflight.station.bulk.run import embed_sources
    from overflight.station.bulk.store import BulkStore
    from overflight.station.bulk.summary import write_summary

    store = BulkStore(out)
    if check:
        for number in store.damaged():
            click.echo(f"shard {number} is damaged and is made again", err=True)
            store.forget(number)
    try:
        progress = embed_sources(sources, out, options, _shown(silent=as_json))
    finally:
        if store.listed:
            write_summary(store)
    _report(store, progress, as_json=as_json)
    if archive is not None:
        _archive(store, archive)
    if progress.failed or store.refused().failed:
        sys.exit(1)


def _shown(*, silent: bool) -> Callable[[BulkProgress], None]:
    """Show progress as a line that is rewritten on a terminal, and every tenth of the run elsewhere."""
    terminal = sys.stderr.isatty()
    shown = [-1]

    def show(progress: BulkProgress) -> None:
        done = progress.shards_before + progress.shards_done
        tenth = 10 * done // max(1, progress.shards)
        if silent or (not terminal and tenth == shown[0]):
            return
        shown[0] = tenth
        left = "" if progress.left_s is None else f", {_duration(progress.left_s)} left"
        line = (
            f"{done:,} of {progress.shards:,} shards, {progress.rows_before + progress.rows:,} embeddings, "
            f"{progress.rate:.1f} a second{left}"
        )
        click.echo(f"\r{line:<79}" if terminal else line, err=True, nl=not terminal or done == progress.shards)

    return show


def _report(store: BulkStore, progress: BulkProgress, *, as_json: bool) -> None:
    from dataclasses import asdict

    import msgspec

    from overflight.station.bulk.run import all_failed

    failed = all_failed(store)
    if as_json:
        facts = {name: value for name, value in asdict(progress).items() if name != "began"}
        click.echo(msgspec.json.encode({"store": str(store.directory), **facts, "failures": failed}).decode())
        return
    for one in failed[:20]:
        click.echo(f"failed: {one.source}: {one.name}: {one.reason}", err=True)
    if len(failed) > 20:
        click.echo(f"and {len(failed) - 20:,} more; see {store.directory / 'summary.html'}", err=True)
    rows = progress.rows_before + progress.rows
    click.echo(f"{rows:,} embeddings in {store.directory}; {len(failed):,} files failed; see summary.html there")


def _archive(store: BulkStore, archive: Path) -> None:
    from overflight.station.archive import Archive
    from overflight.station.bulk.to_archive import add_to_archive

    flight, new = add_to_archive(store, Archive(archive))
    click.echo(f"{flight.name}: {flight.rows:,} embeddings {'added to' if new else 'already in'} {archive}")


def _plan(sources: tuple[str, ...], options: BulkOptions, nodes: str, count: int | None, *, as_json: bool) -> None:
    import msgspec

    from overflight.runtime.errors import UsageError
    from overflight.station.bulk.plan import plan

    if not sources or not all(part.isdigit() and int(part) for part in nodes.split(",")):
        raise UsageError("--plan needs sources, and --nodes numbers such as 1,2,4")
    found = plan(sources, options, [int(part) for part in nodes.split(",")], count=count)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        _show_plan(found)


def _show_plan(found: BulkPlan) -> None:
    click.echo(f"{found.rows:,} embeddings of {found.files:,} listed files, {found.input_gb:,.2f} GB to read")
    click.echo(
        f"measured on {found.sampled_rows} of them: {found.rate:.1f} a second with {found.workers} workers of "
        f"{found.threads} threads ({found.engine}), {found.rows_per_cpu_s:.1f} a CPU second"
    )
    click.echo(
        f"a worker's time: reading {found.read_share:.0%}, resizing {found.resize_share:.0%}, "
        f"engine {found.engine_share:.0%}, writing {found.write_share:.0%}; start {found.start_s:.1f} s"
    )
    click.echo(
        f"disk {found.disk_gb:,.2f} GB ({found.bytes_per_row:,.0f} bytes a row), memory {found.memory_gb:.1f} GB a node"
    )
    for one in found.nodes:
        click.echo(
            f"{one.nodes:>5} nodes: {_duration(one.hours * 3600)}, reading {one.read_mb_per_s:,.1f} MB/s together"
        )
    click.echo(
        f"one node by the fastest and slowest quarter of the sample: {_duration(found.low_hours * 3600)} to "
        f"{_duration(found.high_hours * 3600)}; several nodes are assumed to be like this one"
    )
    if found.refused:
        click.echo(f"{found.refused:,} files cannot be read")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
