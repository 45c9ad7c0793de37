"""The table: committed records as Markdown, between two markers of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.bench.check import check_records, read_budgets
from overflight.bench.compare import ratios
from overflight.bench.spread import Ratio, Spread, say
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.bench.row import Row

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
BASELINES = ("transformers_torch:fp32", "naive:fp32", "transformers_torch:cuda-fp16-eager")
NAMES = {
    "ours": "Overflight",
    "flown": "Overflight, picture to decision",
    "transformers_torch": "transformers + torch",
    "open_clip": "open_clip",
    "traced": "ONNX Runtime, traced graph",
    "openvino_nncf": "OpenVINO, traced graph",
    "naive": "naive loop, both towers",
}


def page(rows: Sequence[Row]) -> str:
    """Write the budgets of ``budgets.toml`` with their results, then the records."""
    lines = ["| asked | | found | |", "|---|---|--:|---|"]
    lines += [f"| {x.what} | {x.asked} | {x.found} | {x.outcome} |" for x in check_records(rows, read_budgets())]
    return "\n".join(lines) + f"\n\n{markdown(rows)}"


def markdown(rows: Sequence[Row]) -> str:
    """Write what the records say: a table per model and measure, of newest rows, and the single figures."""
    parts = [_contest(contest, rows) for contest in _contests(rows, ("engine", "classify"))]
    figures = list(_figures(rows))
    if figures:
        parts.append("\n".join(["| measured | median | p99 | on |", "|---|--:|--:|---|", *figures]))
    return "\n\n".join(parts)


def summary(rows: Sequence[Row]) -> str:
    """Write the cost of a frame in the image tower at batch 1: a row per subject, a column per model."""
    contests = [found for found in _contests(rows, ("engine",)) if found[0].settings.get("batch") == 1]
    columns = {contest[0].model: {row.subject: row for row in contest if row.samples} for contest in contests}
    if not columns:
        raise UsageError("no records of the image tower; make some with: overflight bench peers")
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    subjects = {subject: Spread.of(row.samples).p50 for column in columns.values() for subject, row in column.items()}
    for subject in sorted(subjects, key=subjects.__getitem__):
        cells = []
        for column in columns.values():
            row = column.get(subject)
            over = _over_baseline(row, rows) if row else None
            ratio = f", {over.median:.2f}" if over else ""
            time = f"{say(Spread.of(row.samples).p50 / 1e6)} ms{ratio}" if row else ""
            cells.append("starved" if row and row.starved else time)
        lines.append(f"| {name_of(subject)} | {' | '.join(cells)} |")
    host, settings = contests[-1][0].host, contests[-1][0].settings
    said = f"Median of a frame, and its ratio to transformers + torch fp32 in the same run, on {host.processor}"
    lines += ["", f"{said}, {settings.get('threads') or 'all'} threads, {settings.get('clock')} clock."]
    return "\n".join(lines)


def place(path: Path, content: str) -> None:
    """Put content between a page's markers. Raises UsageError where they are not."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"{path}: expected the markers {BEGIN} and {END} once each; write them where the table goes")
    head, rest = text.split(BEGIN)
    write_atomically(path, f"{head}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}".encode())


def placed(path: Path) -> str | None:
    """Return what lies between a page's markers, or None where there are none."""
    text = path.read_text(encoding="utf-8")
    return text.split(BEGIN)[1].split(END)[0].strip() if BEGIN in text else None


def _contests(rows: Sequence[Row], measures: tuple[str, ...]) -> list[list[Row]]:
    """Collect the rows of one comparison: one command measures its peers in several runs where memory is short."""
    contests: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if row.measure in measures:
            settings = (row.settings.get(name) for name in ("batch", "threads", "clock"))
            contests.setdefault((row.measure, row.model, row.host.kind, *settings), {})[row.subject] = row
    return [list(contest.values()) for contest in contests.values() if any(row.samples for row in contest.values())]


def _over_baseline(row: Row, everything: Sequence[Row]) -> Ratio | None:
    """Return a row's ratio to the baseline of its own run: rows of different runs are never divided."""
    run = [other for other in everything if other.run == row.run and not other.starved]
    baseline = next((x for name in BASELINES for x in run if x.samples and x.subject == name), None)
    if baseline is None or row.starved or row.subject == baseline.subject:
        return None
    return ratios(run, baseline.title)[row.title][1]


def _contest(rows: Sequence[Row], everything: Sequence[Row]) -> str:
    first = next(row for row in rows if row.samples)
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
        relative = row.starved or _over_baseline(row, everything) or ("1" if row.subject in BASELINES else "")
        share = str(row.floor or "")
        cosine = f"{row.figures['cosine_mean']:.4f}" if "cosine_mean" in row.figures else ""
        memory = f"{row.figures['peak_bytes'] / 1e6:.0f}"
        times = f"{say(spread.p50 / 1e6)} | {say(spread.p99 / 1e6)}"
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
            row.measure
            in (
                "stream",
                "start",
                "memory",
                "match",
                "search",
                "archive",
                "batches",
                "tiles",
                "sustained",
                "export",
                "build",
            )
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
            f"| {row.measure}: {row.title}{fps}{model} | {say(spread.p50 / scale)} {unit} | "
            f"{say(spread.p99 / scale)} {unit} | {on} |"
        )


def name_of(subject: str) -> str:
    """Return a subject's name for people."""
    peer, _, variant = subject.partition(":")
    variant = variant.replace("openvino-cpu-fp16", "openvino-cpu-bf16")  # the only half precision that is built there
    return f"{NAMES.get(peer, peer)} {variant}".strip()
