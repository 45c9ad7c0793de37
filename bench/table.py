"""The table: committed records as Markdown, put between two markers of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.bench.compare import ratios
from overflight.bench.spread import Spread
from overflight.runtime.bundle import write_atomically
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.bench.row import Row

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
YARDSTICKS = ("hugging:fp32", "naive:fp32", "hugging:cuda-fp16-eager")
NAMES = {
    "ours": "Overflight",
    "flown": "Overflight, picture to verdict",
    "hugging": "transformers + torch",
    "laion": "open_clip",
    "traced": "ONNX Runtime, traced graph",
    "intel": "OpenVINO, traced graph",
    "naive": "naive loop, both towers",
}


def markdown(rows: Sequence[Row]) -> str:
    """Write what the records say: a table per model and measure, from its newest run, and the single figures."""
    parts = [_contest(run) for run in _newest_runs(rows, ("engine", "classify"))]
    figures = list(_figures(rows))
    if figures:
        parts.append("\n".join(["| measured | median | p99 | on |", "|---|--:|--:|---|", *figures]))
    return "\n\n".join(parts)


def place(page: Path, content: str) -> None:
    """Put content between a page's markers. Raises UsageError where they are not."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"{page}: expected the markers {BEGIN} and {END} once each; write them where the table goes")
    head, rest = text.split(BEGIN)
    write_atomically(page, f"{head}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}".encode())


def placed(page: Path) -> str | None:
    """Return what lies between a page's markers, or None where there are none."""
    text = page.read_text(encoding="utf-8")
    return text.split(BEGIN)[1].split(END)[0].strip() if BEGIN in text else None


def _newest_runs(rows: Sequence[Row], measures: tuple[str, ...]) -> list[list[Row]]:
    newest: dict[tuple[object, ...], str] = {}
    for row in rows:
        if row.measure in measures and row.samples:
            newest[row.measure, row.model, row.host.kind, row.settings.get("batch")] = row.run
    return [[row for row in rows if row.run == run] for run in newest.values()]


def _contest(rows: Sequence[Row]) -> str:
    first = rows[0]
    yardstick = next((x for x in rows for name in YARDSTICKS if x.samples and x.subject == name), None)
    over = ratios(rows, yardstick.title) if yardstick else {}
    lines = [
        f"**{first.model}**, {first.measure}, batch {first.settings.get('batch', 1)}, "
        f"{first.settings.get('threads') or 'all'} threads, {first.settings.get('clock', 'wall')} clock, "
        f"{first.host.kind}, load {first.host.load:g}",
        "",
        "| | median ms | p99 ms | over torch fp32 (99 % range) | of the floor | cosine | MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    if first.measure == "classify":
        lines[2] = lines[2].replace("torch fp32", "the naive loop")
    for row in sorted((row for row in rows if row.samples), key=lambda row: Spread.of(row.samples).p50):
        spread = Spread.of(row.samples)
        relative = "1" if row is yardstick else str(over[row.title][1]) if row.title in over else ""
        share = f"{row.floor.share:.0%}" if row.floor else ""
        cosine = f"{row.figures['cosine_mean']:.4f}" if "cosine_mean" in row.figures else ""
        memory = f"{row.figures['peak_bytes'] / 1e6:.0f}"
        times = f"{spread.p50 / 1e6:.3g} | {spread.p99 / 1e6:.3g}"
        lines.append(f"| {name_of(row.subject)} | {times} | {relative} | {share} | {cosine} | {memory} |")
    lines += [
        f"| {name_of(row.subject)} | | | {row.reason.replace('|', '/')[:120]} | | | |"
        for row in rows
        if not row.samples
    ]
    return "\n".join(lines)


def _figures(rows: Sequence[Row]) -> Iterator[str]:
    newest: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        if (
            row.measure in ("stream", "start", "memory", "match", "search", "batches", "tiles", "export", "build")
            and row.samples
        ):
            newest[row.measure, row.model, f"{row.title} {row.settings.get('fps', '')}"] = row
    for row in newest.values():
        spread, scale = Spread.of(row.samples), 1e6
        unit = "MB" if row.unit == "bytes" else "ms"
        fps = f", {row.settings['fps']} frames/s" if row.settings.get("fps") else ""
        model = f", {row.model}" if row.model else ""
        on = f"{row.host.kind}, load {row.host.load:g}"
        yield (
            f"| {row.measure}: {row.title}{fps}{model} | {spread.p50 / scale:.3g} {unit} | "
            f"{spread.p99 / scale:.3g} {unit} | {on} |"
        )


def name_of(subject: str) -> str:
    """Return a subject's name for people."""
    peer, _, variant = subject.partition(":")
    return f"{NAMES.get(peer, peer)} {variant}".strip()
