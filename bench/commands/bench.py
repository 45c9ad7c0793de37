"""``overflight bench``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from overflight.bench.commands.measure import MEASURING
from overflight.runtime.finite import Finite

_PATH: Any = click.Path(path_type=Path)


@click.group("bench", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure what a frame costs, next to other runtimes and the hardware's limit.

    Every measurement becomes a row with its raw samples and its conditions; --out keeps rows in a file.

    \b
    overflight bench engine --bundle base-256/ --checkpoint ./base-256-checkpoint
    overflight bench stream --fps 30
    overflight bench check
    """


for _each in MEASURING:
    command.add_command(_each)


@command.command("compare")
@click.argument("first", type=_PATH)
@click.argument("second", type=_PATH)
@click.option("--over", help="The subject that the others are set against; the first of the run when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def _compare(first: Path, second: Path, over: str | None, as_json: bool) -> None:
    """Compare two runs of one command: do their ratios agree?

    Each ratio has its 99 % confidence interval; two runs agree where the intervals overlap.

    \b
    overflight bench compare monday.jsonl tuesday.jsonl
    """
    import msgspec

    from overflight.bench.compare import compare
    from overflight.bench.row import read

    found = compare(read(first), read(second), over)
    if as_json:
        for one in found:
            click.echo(msgspec.json.encode({**msgspec.to_builtins(one), "agrees": one.agrees}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("subject", f"over {found[0].over}, first", "second", "agree")
    for one in found:
        table.add_row(one.subject, str(one.first), str(one.second), "yes" if one.agrees else "no")
    Console(width=None if Console().is_terminal else 160).print(table)


@command.command("table")
@click.argument("records", type=_PATH, required=False)
@click.option("--into", type=_PATH, help="Put the table between the markers of this page.")
@click.option("--summary", "brief", is_flag=True, help="Only the image tower and its peers, a column per model.")
@click.option("--json", "as_json", is_flag=True, help="Print the Markdown as JSON.")
def _table(records: Path | None, into: Path | None, brief: bool, as_json: bool) -> None:
    """Write records as Markdown: the committed ones when left out.

    \b
    overflight bench table --into docs/bench.md
    overflight bench table --summary --into README.md
    """
    import msgspec

    from overflight.bench.row import RESULTS, read
    from overflight.bench.table import page, place, summary

    content = (summary if brief else page)(read(records or RESULTS))
    if into is not None:
        place(into, content)
    elif as_json:
        click.echo(msgspec.json.encode({"markdown": content}))
    else:
        click.echo(content)


@command.command("plot")
@click.argument("records", type=_PATH, required=False)
@click.option("-o", "--out", type=_PATH, default=Path("plots"), show_default=True, help="The folder for the SVGs.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def _plot(records: Path | None, out: Path, as_json: bool) -> None:
    """Draw records: latencies, growth, the roofline, cost over time.

    \b
    overflight bench plot records.jsonl -o plots/
    """
    import msgspec

    from overflight.bench.plot import save
    from overflight.bench.row import RESULTS, read

    paths = [str(path) for path in save(read(records or RESULTS), out)]
    click.echo(msgspec.json.encode(paths) if as_json else "\n".join(paths))


@command.command("report")
@click.argument("records", type=_PATH, required=False)
@click.option("-o", "--out", type=_PATH, default=Path("bench.html"), show_default=True, help="The page.")
@click.option("--json", "as_json", is_flag=True, help="Print where the page is as JSON.")
def _report(records: Path | None, out: Path, as_json: bool) -> None:
    """Write records as one page: budgets, tables, plots, machines.

    \b
    overflight bench report -o bench.html
    """
    import msgspec

    from overflight.bench.report import write_report
    from overflight.bench.row import RESULTS, read

    write_report(read(records or RESULTS), out)
    click.echo(msgspec.json.encode({"report": str(out)}) if as_json else str(out))


@command.command("device")
@click.option("--bundle", type=_PATH, help="A bundle; a B/16-256 of random weights when left out.")
@click.option("--out", type=_PATH, help="Add a JSON line per step to this file.")
@click.option("--record", type=_PATH, help="Write the Markdown record here.")
@click.option("--work", type=_PATH, help="Keep graphs and plans in this folder.  [default: a temporary one]")
@click.option("--step", "chosen", multiple=True, help="One step instead of all; may be repeated.")
@click.option("--minutes", type=Finite(0.1, 600), default=10, show_default=True, help="Begin no step after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines only, without the Markdown record.")
def _device(
    bundle: Path | None,
    out: Path | None,
    record: Path | None,
    work: Path | None,
    chosen: tuple[str, ...],
    minutes: float,
    as_json: bool,
) -> None:
    """Prove on this device what only a device can show, in ten minutes.

    Doctor; page-locked and mapped memory; ONNX Runtime CUDA and TensorRT in every order of batches, with and without
    CUDA graphs; what TensorRT's builder made of fp16 and int8; a thousand frames per engine with clocks; PyTorch, eager
    and compiled, next to ONNX Runtime CUDA; a forced capture failure, a torn plan, an interrupted build; the 4K resize;
    energy. One JSON line per step, then a record for jetson/README.md.

    A step that fails, crashes or hangs does not stop the next. What this machine does not have is reported as absent.
    The steps come in the order of what they are worth; those that the time is too short for are reported as not
    reached. Exits with 1 when a step failed.

    \b
    overflight bench device --out device.jsonl --record device.md
    """
    from tempfile import TemporaryDirectory

    import msgspec

    from overflight.bench.device.outcome import markdown, summary
    from overflight.bench.device.run import run_steps
    from overflight.bench.device.steps import STEPS
    from overflight.bench.host import commit, describe_host
    from overflight.runtime.errors import OverflightError, UsageError

    if unknown := [step for step in chosen if step not in STEPS]:
        raise UsageError(f"--step {unknown[0]}: no such step; expected one of {', '.join(STEPS)}")
    host = describe_host()
    facts = {
        "machine": host.board or host.gpu or host.processor,
        "system": f"{host.system}, Python {host.python}, load {host.load}",
        "commit": commit(),
        "tower": bundle.name if bundle else "B/16-256 of random weights",
    }
    outcomes = []
    with TemporaryDirectory() as scratch:
        place = work or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        for outcome in run_steps(chosen or list(STEPS), place, bundle, whole_s=minutes * 60):
            outcomes.append(outcome)
            line = msgspec.json.encode(outcome).decode()
            click.echo(line)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
    page = markdown(outcomes, f"{host.kind}, {time.strftime('%Y-%m-%d', time.gmtime())}", facts)
    if record is not None:
        record.write_text(page, encoding="utf-8")
    elif not as_json:
        click.echo(page)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise OverflightError(f"{summary(outcomes)}; see the lines above")


@command.command("check")
@click.argument("records", type=_PATH, required=False)
@click.option("--against", help="A commit, or a checkout's folder: its hot functions and ours are timed in turns.")
@click.option("--bundle", type=_PATH, help="The bundle for --against; the default model's when left out.")
@click.option("--function", "functions", multiple=True, help="One hot function instead of all; may be repeated.")
@click.option("--rounds", type=click.IntRange(10), default=200, show_default=True, help="Turns for --against.")
@click.option("--out", type=_PATH, help="Add the rows of --against to this record file.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON lines.")
def _check(
    records: Path | None,
    against: str | None,
    bundle: Path | None,
    functions: tuple[str, ...],
    rounds: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fail when a budget is missed, or a hot function has become slower.

    Without --against, the records (the committed ones when left out) are compared with bench/budgets.toml. With it,
    resize, match, decide, journal append and the engine of both trees are timed in turns; a difference counts only
    beyond the noise of the comparison itself, and what is unclear is timed up to five times as long.

    \b
    overflight bench check
    overflight bench check --against v0.1.0
    """
    import msgspec

    from overflight.bench.check import check_functions, check_records, failures, read_budgets, table_of
    from overflight.bench.row import RESULTS, append, read
    from overflight.bench.sample import SamplingPlan
    from overflight.bench.show import progress
    from overflight.runtime.bundle import default_bundle
    from overflight.runtime.errors import OverflightError

    budgets = read_budgets()
    if against is None:
        findings = check_records(read(records or RESULTS), budgets)
    else:
        plan = SamplingPlan(rounds, rounds, 0.0, settle_s=0.001)
        with progress(silent=as_json) as report:
            at = bundle or default_bundle()
            findings, rows = check_functions(at, against, plan, budgets, functions=functions, report=report)
        if out is not None:
            append(out, rows)
    if as_json:
        for finding in findings:
            click.echo(msgspec.json.encode(finding))
    else:
        from rich.console import Console

        Console(width=None if Console().is_terminal else 160).print(table_of(findings))
    if missed := failures(findings):
        raise OverflightError("; ".join(f"{one.what}: {one.asked}, found {one.found}" for one in missed))
