"""``overflight report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from overflight.station.words import Language


@click.command()
@click.argument("flight", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page.  [default: FLIGHT/report.html]")
@click.option("--describe", is_flag=True, help="Add the description of the flight.")
@click.option("--archive", type=click.Path(path_type=Path), help="Add the findings and their review in this archive.")
@click.option("--against", type=click.Path(path_type=Path), help="Add the changes since this earlier flight.")
@click.option("--labels", default="description", show_default=True, help="The labels of --describe and --against.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Their bundle.  [default: the default model's]")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True, help="Of these chapters.")
@click.option("--json", "as_json", is_flag=True, help="Print the path and figures as JSON.")
def command(
    flight: Path,
    out: Path | None,
    as_json: bool,
    describe: bool,
    archive: Path | None,
    against: Path | None,
    labels: str,
    bundle: Path | None,
    language: Language,
) -> None:
    """Write the report of a flight: one self-contained page.

    \b
    overflight report flights/first
    overflight report flights/first -o first.html
    overflight report flights/second --describe --archive archive --against flights/first
    """
    import msgspec

    from overflight.station.report import REPORT, write_report

    chapters = _chapters(flight, archive, against, labels, bundle, language, describe=describe)
    summary = write_report(flight, out, chapters)
    page = out or flight / REPORT
    if as_json:
        shares = {label.label or "unknown": round(label.share, 4) for label in summary.labels}
        written = {"report": str(page), "bytes": page.stat().st_size, "observations": len(summary), "shares": shares}
        click.echo(msgspec.json.encode(written))
    else:
        click.echo(f"{page}: {len(summary)} observations, {page.stat().st_size / 1000:.0f} kB")


def _chapters(
    flight: Path,
    archive: Path | None,
    against: Path | None,
    labels: str,
    bundle: Path | None,
    language: Language,
    *,
    describe: bool,
) -> list[Element]:
    from overflight.station.report_chapters import changes_chapter, description_chapter, findings_chapter

    made = []
    if describe or against is not None:
        from overflight.export.shipped_labels import bank_of
        from overflight.station.ground.towers import open_bundle

        opened = open_bundle(bundle)
        bank = bank_of(labels, opened)
        if describe:
            made.append(description_chapter(flight, bank, opened.manifest, language))
        if against is not None:
            made.append(changes_chapter(flight, against, bank, opened.manifest, language))
    if archive is not None:
        made.insert(int(describe), findings_chapter(flight, archive, language))
    return made
