"""The report: all records on one self-contained page."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from overflight.bench.check import check_records, read_budgets
from overflight.bench.plot import plots
from overflight.bench.table import markdown
from overflight.runtime.durable import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.bench.row import Row

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #8886 }
td:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums }
.kept { color: #2a8a43 } .missed { color: #c33; font-weight: 600 } .goal, .not, .within { color: #b37400 }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 6px; margin: .5rem 0 }
"""


def write_report(rows: Sequence[Row], path: Path) -> None:
    """Write the page: what was asked and found, the tables, every plot, and the machines behind them."""
    head = f'<meta charset="utf-8"><title>Overflight bench</title><style>{_STYLE}</style>'
    body = "\n".join(_body(rows))
    write_atomically(path, f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'.encode())


def _body(rows: Sequence[Row]) -> Iterator[str]:
    yield "<h1>What a frame costs</h1>"
    findings = check_records(rows, read_budgets())
    lines = (
        f"<tr><td>{_safe(x.what)}</td><td>{_safe(x.asked)}</td><td>{_safe(x.found)}</td>"
        f'<td class="{x.outcome.split()[0]}">{x.outcome}</td></tr>'
        for x in findings
    )
    yield f"<h2>Asked and found</h2><table>{''.join(lines)}</table>"
    yield "<h2>Records</h2>"
    yield from _tables(markdown(rows))
    yield "<h2>Plots</h2>"
    for draw in plots(rows).values():
        yield draw().decode().split("?>", 1)[-1].split('dtd">', 1)[-1]
    yield "<h2>Machines</h2>"
    hosts = {(row.host.kind, row.host.processor, row.host.system, row.host.python, row.commit[:12]) for row in rows}
    yield "".join(f"<p>{_safe(', '.join(host))}</p>" for host in sorted(hosts))


def _tables(text: str) -> Iterator[str]:
    """Turn the Markdown that table.py writes, tables and bold paragraphs only, into HTML."""
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if not lines[0].startswith("|"):
            yield f"<p>{_safe(block).replace('**', '')}</p>"
            continue
        cells = [[_safe(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
        head = "".join(f"<th>{cell}</th>" for cell in cells[0])
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[2:])
        yield f"<table><tr>{head}</tr>{body}</table>"


def _safe(text: str) -> str:
    return html.escape(text)
