"""The summary page of a bulk store: what was done, how fast, what it took, and what failed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overflight.runtime.durable import write_atomically
from overflight.station.page import page, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from overflight.station.bulk.records import Failed
    from overflight.station.bulk.store import BulkStore

FILE = "summary.html"
_MOST_FAILURES = 500  # on the page; the manifests hold all
_KINDS = {"still": "pictures", "windows": "mosaic windows", "video": "video frames", "flight": "frames of flights"}


@dataclass
class BulkSummary:
    """Sums over the manifests of a store."""

    shards: int = 0
    shards_done: int = 0
    items: int = 0
    rows: int = 0
    placed: int = 0
    input_bytes: int = 0
    stored_bytes: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    parts_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "resize", "engine", "write"), 0.0))
    peak_bytes: int = 0
    hosts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sources: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    failed: list[Failed] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def summarise(store: BulkStore) -> BulkSummary:
    """Add up the manifests and the listing."""
    found, refused = BulkSummary(), store.refused()
    found.failed = list(refused.failed)
    found.passed_over = dict(refused.passed_over)
    found.notes = list(dict.fromkeys(refused.notes))
    for shard in store.shards():
        found.shards += 1
        record = store.record(shard.number)
        if record is None:
            continue
        found.shards_done += 1
        done = iter(record.done)
        failed = {(one.source, one.name) for one in record.failed if not one.rows}
        for item in shard.items:
            counts = found.sources[item.source, item.kind]
            counts[0] += 1
            if (item.source, item.name) in failed and item.kind != "windows":
                counts[2] += 1
            elif (one := next(done, None)) is not None:
                counts[1] += one.rows
        found.items += len(shard.items)
        found.rows += record.rows
        found.placed += record.placed
        found.input_bytes += record.input_bytes
        found.stored_bytes += record.file_bytes
        found.cpu_s += record.costs.cpu_s
        found.wall_s += record.costs.wall_s
        for name in found.parts_s:
            found.parts_s[name] += getattr(record.costs, f"{name}_s")
        found.peak_bytes = max(found.peak_bytes, record.costs.peak_bytes)
        found.hosts[record.host] += record.rows
        found.failed += record.failed
        found.notes += [note for note in record.notes if note not in found.notes]
    return found


def write_summary(store: BulkStore) -> Path:
    """Write ``summary.html`` into the store and return its path."""
    path = store.directory / FILE
    write_atomically(path, make_summary(store, summarise(store)))
    return path


def make_summary(store: BulkStore, summary: BulkSummary) -> bytes:
    """Return the page: one file that loads nothing else."""
    body = [_header(store, summary), _figures(summary), _sources(summary), _time(summary), _failures(summary)]
    main = tag("main", [*body, _left_out(summary), _settings(store, summary)])
    return page(f"Bulk store {store.directory.name}", [main], style="report.css", script=None)


def _header(store: BulkStore, summary: BulkSummary) -> Element:
    left = summary.shards - summary.shards_done
    state = "Every shard is done." if not left else f"{left:,} of {summary.shards:,} shards are not done yet."
    return tag(
        "header",
        tag("p", "Bulk store", class_="kind"),
        tag("h1", store.directory.name),
        tag("p", f"{summary.rows:,} embeddings of {store.settings().model}. {state}", class_="lead"),
        tag("p", f"{len(summary.failed):,} files could not be embedded; they are listed below.", class_="warning")
        if summary.failed
        else None,
    )


def _figures(summary: BulkSummary) -> Element:
    rate = summary.rows / summary.cpu_s if summary.cpu_s else 0.0
    figures = (
        ("embeddings", f"{summary.rows:,}"),
        ("with a place", f"{summary.placed:,}"),
        ("read", _size(summary.input_bytes)),
        ("stored", _size(summary.stored_bytes)),
        ("rows a CPU second", f"{rate:.1f}"),
        ("largest worker", _size(summary.peak_bytes) if summary.peak_bytes else "not known"),
    )
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in figures], class_="figures")


def _sources(summary: BulkSummary) -> Element:
    rows = [
        (source, _KINDS[kind], f"{items:,}", f"{rows:,}", f"{failed:,}")
        for (source, kind), (items, rows, failed) in sorted(summary.sources.items())
    ]
    return _section("Sources", _table(("source", "kind", "items", "embeddings", "failed"), rows, numbers=3))


def _time(summary: BulkSummary) -> Element:
    known = sum(summary.parts_s.values())
    parts = {**summary.parts_s, "other": max(0.0, summary.wall_s - known)}
    rows = [
        (name, f"{seconds:,.1f} s", f"{seconds / summary.wall_s:.0%}" if summary.wall_s else "")
        for name, seconds in parts.items()
    ]
    rows.append(("CPU time", f"{summary.cpu_s:,.1f} s", ""))
    hosts = ", ".join(f"{host} ({count:,} rows)" for host, count in sorted(summary.hosts.items()))
    return _section(
        "Time of the workers",
        _table(("part", "time", "share"), rows, numbers=2),
        tag("p", f"Machines: {hosts}", class_="note"),
    )


def _failures(summary: BulkSummary) -> Element | None:
    if not summary.failed:
        return None
    rows = [
        (one.source, one.name, one.reason.removeprefix(f"{one.source.rstrip('/')}/{one.name}: "), f"{one.rows:,}")
        for one in summary.failed[:_MOST_FAILURES]
    ]
    more = len(summary.failed) - len(rows)
    return _section(
        "Failed",
        _table(("source", "file", "reason", "rows kept"), rows, numbers=1),
        tag("p", f"and {more:,} more in the manifests", class_="note") if more else None,
    )


def _left_out(summary: BulkSummary) -> Element | None:
    lines = [
        f"{count:,} files ending in {suffix} were not read" for suffix, count in sorted(summary.passed_over.items())
    ]
    lines += summary.notes
    return _section("Notes", tag("ul", [tag("li", line) for line in lines])) if lines else None


def _settings(store: BulkStore, summary: BulkSummary) -> Element:
    settings = store.settings()
    rows = [(name.replace("_", " "), str(getattr(settings, name))) for name in settings.__struct_fields__]
    rows.append(("shards", f"{summary.shards_done:,} of {summary.shards:,}"))
    return _section("Settings", _table(("setting", "value"), rows))


def _section(title: str, *children: Element | None) -> Element:
    return tag("section", tag("h2", title), *children)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> Element:
    """Make a table whose last ``numbers`` columns are numbers."""
    first = len(head) - numbers

    def cells(row: Sequence[str], name: str) -> list[Element]:
        return [tag(name, text, class_="number" if place >= first else None) for place, text in enumerate(row)]

    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", cells(head, "th"))),
            tag("tbody", [tag("tr", cells(row, "td")) for row in rows]),
        ),
        class_="wide paths",
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
