"""A bulk run: settings, listing, and the shards that are not done, given to the chosen executor."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.store import choose
from overflight.station.bulk.fit import BATCH, Fit, fit
from overflight.station.bulk.listing import Listing, in_shards
from overflight.station.bulk.local import run_local
from overflight.station.bulk.records import SCHEMA, Failed, Refused, Settings
from overflight.station.bulk.shard import ShardTask
from overflight.station.bulk.store import BulkStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.engines import Precision, Target
    from overflight.station.bulk.outcome import Outcome
    from overflight.station.bulk.records import Item, ShardRecord

SHARD_ROWS = 256


@dataclass(frozen=True)
class BulkOptions:
    """How sources are embedded; None leaves a choice to the machine. ``part`` is (i, N) of ``--shard i/N``."""

    bundle: Path | None = None
    target: Target | None = None
    precision: Precision | None = None
    batch: int | None = None
    shard_rows: int = SHARD_ROWS
    window_px: int | None = None
    gsd_m: float | None = None
    fps: float = 1.0
    half: bool = False
    workers: int | None = None
    threads: int | None = None
    part: tuple[int, int] = (0, 1)
    ray: str | None = None
    update: bool = False
    retry_failed: bool = False


@dataclass
class BulkProgress:
    """What a run has done until now. Rates count this run's rows alone."""

    shards: int
    rows_expected: int
    shards_before: int = 0
    rows_before: int = 0
    shards_done: int = 0
    rows: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Rows a second since the run began."""
        return self.rows / max(1e-9, time.monotonic() - self.began)

    @property
    def left_s(self) -> float | None:
        """The time left at this rate; None before the first shard is done."""
        left = self.shards - self.shards_before - self.shards_done
        return None if not self.shards_done else left * (time.monotonic() - self.began) / self.shards_done


def embed_sources(
    sources: Sequence[str],
    out: Path,
    options: BulkOptions,
    report: Callable[[BulkProgress], None] = lambda progress: None,
) -> BulkProgress:
    """Embed what is not done of the sources into the store ``out``; without sources, of those that it lists.

    Raises UsageError for other settings than the store's, OverflightError where the run cannot go on: what is done
    stays, and the same command resumes.
    """
    store = BulkStore(out)
    bundle = Bundle.open(options.bundle or (store.settings().bundle if store.exists else default_bundle()))
    settings = store.settings() if store.exists and not sources else store.begin(make_settings(bundle, options, store))
    settings = msgspec.structs.replace(settings, bundle=str(bundle.directory.resolve()))
    store.clear_partial()
    try:
        list_sources(store, sources, settings, update=options.update)
    except OverflightError:
        store.discard()
        raise
    chosen = fit(bundle, settings, options.workers, options.threads)
    progress, pending = _survey(store, options)
    report(progress)
    if not pending:
        return progress
    tasks = (
        ShardTask(str(store.directory), settings, shard, chosen.threads)
        for shard in store.shards()
        if shard.number in pending
    )
    for outcome in _execute(tasks, options, chosen, len(pending)):
        if outcome.record is None:
            raise OverflightError(outcome.reason)
        _count(progress, outcome.record)
        report(progress)
    store.clear_partial()  # again: a killed process lives on while it waits for the disk
    return progress


def make_settings(bundle: Bundle, options: BulkOptions, store: BulkStore | None = None) -> Settings:
    """Return what decides the rows. What the user leaves open is as the store has it, else fitted to this machine."""
    kept = store.settings() if store is not None and store.exists else None
    if kept is not None and options.target is None:
        target, precision, sha256 = kept.target, kept.precision, kept.engine_sha256
    else:
        engine = choose(bundle, options.target, options.precision, threads=1).engine
        target, precision, sha256 = engine.info.target, engine.info.precision, engine.info.sha256
        engine.close()
    return Settings(
        schema=SCHEMA,
        bundle=str(bundle.directory.resolve()),
        bundle_sha256=bundle.sha256,
        tower=bundle.manifest.tower,
        model=bundle.manifest.name,
        width=bundle.manifest.width,
        side=bundle.manifest.resize.side,
        target=target,
        precision=precision,
        engine_sha256=sha256,
        batch=options.batch or (kept.batch if kept else BATCH[target]),
        shard_rows=options.shard_rows,
        window_px=options.window_px,
        gsd_m=options.gsd_m,
        fps=options.fps,
        half=options.half,
    )


def list_sources(store: BulkStore, sources: Sequence[str], settings: Settings, *, update: bool = False) -> None:
    """List the sources once; with ``update``, add what is new or has changed since."""
    if store.listed and not update:
        return
    if not sources:
        raise UsageError(f"{store.directory}: nothing is listed there yet; name the sources")
    listing = Listing(settings)
    if store.listed:
        known = {_identity(item) for shard in store.shards() for item in shard.items}
        last = max((shard.number for shard in store.shards()), default=-1)
        new = [item for item in listing.items(sources) if _identity(item) not in known]
        store.extend_listing(in_shards(new, settings.shard_rows, last + 1))
    else:
        store.write_listing(in_shards(listing.items(sources), settings.shard_rows))
    store.write_refused(Refused(tuple(listing.refused), dict(listing.passed_over), tuple(listing.notes)))


def parse_part(text: str) -> tuple[int, int]:
    """Read ``i/N``, i from 0 to N - 1. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise UsageError(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/8")
    return int(found[1]), int(found[2])


def _identity(item: Item) -> tuple[object, ...]:
    """Return what makes an item the same one, under whichever source it is listed."""
    return item.where, item.bytes, item.mtime_ns, item.first


def _survey(store: BulkStore, options: BulkOptions) -> tuple[BulkProgress, set[int]]:
    """Count what is to be done and what is done, and return the numbers of the shards that are not."""
    index, parts = options.part
    progress, pending = BulkProgress(0, 0), set()
    for shard in store.shards():
        if shard.number % parts != index:
            continue
        progress.shards += 1
        progress.rows_expected += sum(item.count for item in shard.items)
        record = store.record(shard.number)
        if record is not None and options.retry_failed and record.failed:
            store.forget(shard.number)
            record = None
        if record is None:
            pending.add(shard.number)
        else:
            progress.shards_before += 1
            progress.rows_before += record.rows
            progress.failed += len(record.failed)
    return progress, pending


def _execute(tasks: Iterator[ShardTask], options: BulkOptions, chosen: Fit, count: int) -> Iterator[Outcome]:
    if options.ray is not None:
        from overflight.station.bulk.on_ray import run_on_ray

        return run_on_ray(tasks, options.ray, chosen)
    return run_local(tasks, min(chosen.workers, count))


def _count(progress: BulkProgress, record: ShardRecord) -> None:
    progress.shards_done += 1
    progress.rows += record.rows
    progress.failed += len(record.failed)


def all_failed(store: BulkStore) -> list[Failed]:
    """Return what could not be listed or embedded, in order."""
    return [*store.refused().failed, *(one for record in store.records() for one in record.failed)]
