"""The plan of a bulk run: hours and disk for any number of nodes, from rates that are measured on a sample first."""

from __future__ import annotations

import time
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import OverflightError, UsageError
from overflight.station.bulk.fit import fit
from overflight.station.bulk.listing import Listing, in_shards
from overflight.station.bulk.local import run_local
from overflight.station.bulk.rows import pyarrow
from overflight.station.bulk.run import BulkOptions, make_settings
from overflight.station.bulk.shard import ShardTask
from overflight.station.bulk.store import BulkStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.station.bulk.records import Item, ShardRecord

SAMPLE_ROWS = 384
_SAMPLE_SHARD = 32  # small shards, so that every worker has several
_MOST_LISTED = 200_000  # items that are kept to draw the sample from


class NodePlan(msgspec.Struct, frozen=True):
    """What ``nodes`` machines like this one need: hours, and the bytes a second that they read together."""

    nodes: int
    hours: float
    read_mb_per_s: float


class BulkPlan(msgspec.Struct, frozen=True):
    """What a run will take, and what that is computed from.

    ``rows`` is the number of embeddings, ``listed_rows`` how many of them the sources hold (videos by their sample).
    ``rate`` is rows a second of one node with ``workers`` workers; the ``..._share`` are parts of a worker's time.
    ``disk_gb`` counts the Parquet files, manifests and the listing. ``low_hours`` and ``high_hours`` of one node are
    from the slowest and fastest quarter of the sampled shards.
    """

    files: int
    rows: int
    listed_rows: int
    input_gb: float
    sampled_rows: int
    workers: int
    threads: int
    engine: str
    rate: float
    rows_per_cpu_s: float
    read_share: float
    resize_share: float
    engine_share: float
    write_share: float
    bytes_per_row: float
    input_bytes_per_row: float
    start_s: float
    memory_gb: float
    disk_gb: float
    low_hours: float
    high_hours: float
    nodes: tuple[NodePlan, ...]
    refused: int


def plan(sources: Sequence[str], options: BulkOptions, nodes: Sequence[int], *, count: int | None = None) -> BulkPlan:
    """Embed a sample of the sources with every worker, and compute what all of them take.

    ``count`` scales the answer to so many rows of the same kind. Raises UsageError for sources without anything to
    embed, OverflightError where none of the sample can be read.
    """
    bundle = Bundle.open(options.bundle or default_bundle())
    settings = msgspec.structs.replace(make_settings(bundle, options), shard_rows=_SAMPLE_SHARD)
    chosen = fit(bundle, settings, options.workers, options.threads)
    listing = Listing(settings)
    items = list(islice(listing.items(sources), _MOST_LISTED))
    if not items:
        raise UsageError(
            f"{', '.join(sources)}: nothing can be embedded; see: overflight bulk, which names the reasons"
        )
    with TemporaryDirectory(prefix="overflight-plan-") as folder:
        store = BulkStore(folder)
        settings = store.begin(settings)
        shards = in_shards(_spread(items), _SAMPLE_SHARD)
        tasks = (ShardTask(folder, settings, shard, chosen.threads) for shard in shards)
        began, records, first_s = time.monotonic(), [], 0.0
        for outcome in run_local(tasks, chosen.workers):
            if outcome.record is None:
                raise OverflightError(outcome.reason)
            first_s = first_s or time.monotonic() - began - outcome.record.costs.wall_s
            records.append(outcome.record)
        bytes_per_row = _stored_bytes(store, records)
    engine = f"{settings.target} {settings.precision}"
    node = _Node(chosen.workers, chosen.threads, chosen.worker_bytes, engine)
    return _computed(items, listing, records, bytes_per_row, first_s, nodes, count, node)


class _Node(msgspec.Struct, frozen=True):
    workers: int
    threads: int
    worker_bytes: int
    engine: str


def _computed(
    items: Sequence[Item],
    listing: Listing,
    records: Sequence[ShardRecord],
    bytes_per_row: float,
    start_s: float,
    nodes: Sequence[int],
    count: int | None,
    node: _Node,
) -> BulkPlan:
    sampled = sum(record.rows for record in records)
    if not sampled:
        reason = next((one.reason for record in records for one in record.failed), "no row")
        raise OverflightError(f"none of the sample can be read ({reason}); look at the sources")
    wall_s = sum(record.costs.wall_s for record in records)
    rate = node.workers * sampled / wall_s
    slow, fast = _quartiles([record.rows / record.costs.wall_s for record in records if record.rows])
    unknown = [item for item in items if item.count == 0]
    per_unknown = _rows_of_unknown(items, records)
    listed = sum(item.count for item in items) + round(per_unknown * len(unknown))
    rows = count or listed
    files = {(item.source, item.where) for item in items}
    sizes = {item.where: item.bytes for item in items}
    total_bytes = sum(sizes.values()) or sum(record.input_bytes for record in records) / sampled * listed
    input_bytes = total_bytes * rows / listed
    parts = {
        name: sum(getattr(record.costs, f"{name}_s") for record in records) / wall_s
        for name in ("read", "resize", "engine", "write")
    }

    def hours(machines: int, speed: float = rate) -> float:
        return (rows / (speed * machines) + start_s) / 3600

    return BulkPlan(
        files=len(files),
        rows=rows,
        listed_rows=listed,
        input_gb=input_bytes / 1e9,
        sampled_rows=sampled,
        workers=node.workers,
        threads=node.threads,
        engine=node.engine,
        rate=rate,
        rows_per_cpu_s=sampled / max(1e-9, sum(record.costs.cpu_s for record in records)),
        read_share=parts["read"],
        resize_share=parts["resize"],
        engine_share=parts["engine"],
        write_share=parts["write"],
        bytes_per_row=bytes_per_row,
        input_bytes_per_row=input_bytes / rows,
        start_s=start_s,
        memory_gb=node.workers * node.worker_bytes / 1e9,
        disk_gb=rows * bytes_per_row / 1e9,
        low_hours=hours(1, fast * node.workers),
        high_hours=hours(1, slow * node.workers),
        nodes=tuple(NodePlan(one, hours(one), input_bytes / 1e6 / (hours(one) * 3600)) for one in nodes),
        refused=len(listing.refused),
    )


def _spread(items: Sequence[Item]) -> list[Item]:
    """Take items at equal distances until they hold about the sample's rows; at most two of unknown length."""
    known, unknown = [item for item in items if item.count], [item for item in items if not item.count]
    mean = sum(item.count for item in known) / max(1, len(known))
    wanted = max(1, round(SAMPLE_ROWS / max(1.0, mean)))
    step = max(1, len(known) // wanted)
    return [*known[::step][:wanted], *unknown[:: max(1, len(unknown) // 2)][:2]]


def _rows_of_unknown(items: Sequence[Item], records: Sequence[ShardRecord]) -> float:
    names = {item.name for item in items if item.count == 0}
    rows = [one.rows for record in records for one in record.done if one.name in names]
    return sum(rows) / len(rows) if rows else 0.0


def _stored_bytes(store: BulkStore, records: Sequence[ShardRecord]) -> float:
    """Return the bytes that a row takes: its part of a Parquet file, of a manifest and of the listing.

    The sample's rows are written as one file first: small files hold more of what is there once for each.
    """
    rows = max(1, sum(record.rows for record in records))
    arrow = pyarrow()
    whole = arrow.concat_tables(arrow.parquet.read_table(store.parquet_path(record.number)) for record in records)
    size, _ = store.write_rows(1 + max(record.number for record in records), whole)
    done = sum(len(msgspec.json.encode(one)) for record in records for one in record.done)
    listing = sum(len(one.name) + 220 for record in records for one in record.done)
    return (size + done + listing) / rows


def _quartiles(rates: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(rates)
    return ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
