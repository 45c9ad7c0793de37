"""``overflight thresholds``."""

from __future__ import annotations

from pathlib import Path

import click

from overflight.runtime.finite import Finite


@click.command()
@click.argument("bank", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The bank to be written.")
@click.option("--flight", "flights", type=click.Path(path_type=Path), multiple=True, help="An unlabelled flight.")
@click.option(
    "--rate",
    metavar="N",
    type=Finite(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="False alarms per hour and label at most.",
)
@click.option("--examples", type=click.Path(path_type=Path), help="CSV or JSONL of image (or frame) and label.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Embeds the images; the default model's when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    bank: Path,
    out: Path,
    flights: tuple[Path, ...],
    rate: float,
    examples: Path | None,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Fit the thresholds of a label bank to flights or labelled frames.

    Flights that showed nothing but background tell where false alarms end; their embeddings are scored again, so any
    bank of the same model will do. A file of labelled frames (images, or frame numbers of one --flight) tells where a
    label begins.

    \b
    overflight thresholds bank.safetensors --flight flights/monday --rate 0.5 -o strict.safetensors
    overflight thresholds bank.safetensors --examples seen.csv -o fitted.safetensors
    """
    import msgspec

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.errors import UsageError
    from overflight.runtime.evaluation.thresholds import (
        example_reader,
        fit_background,
        fit_examples,
        read_examples,
        read_flights,
    )
    from overflight.runtime.flight.directory import read_record

    loaded = LabelBank.load(bank)
    if examples is not None:
        with example_reader(loaded, flights, bundle) as embed:
            made, fitted = fit_examples(loaded, read_examples(examples, embed))
        circumstance = f"from the labelled frames of {examples}"
    elif flights:
        for flight in flights:
            read_record(flight)
        seen = read_flights(flights, loaded)
        made, fitted = fit_background(loaded, seen, rate)
        circumstance = f"from {len(seen.embeddings)} looks in {seen.hours:.2f} h, at most {rate:g} alarms per hour"
    else:
        raise UsageError("thresholds: nothing to learn from; name --flight DIR or --examples FILE")
    made.save(out)
    if as_json:
        click.echo(msgspec.json.encode(fitted).decode())
        return
    for item in fitted:
        click.echo(item.line())
    click.echo(f"{out}: {circumstance}")
