"""``overflight rescore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.station.rescore import Rescored

_PATH: Any = click.Path(path_type=Path)


@click.command()
@click.argument("archive", type=_PATH)
@click.argument("bank", type=_PATH)
@click.option("--flight", "flights", multiple=True, help="Only this flight (id or name); repeatable.")
@click.option("--persist", default="3/5", show_default=True, help="An event begins when N of the last M frames agree.")
@click.option("--out", type=_PATH, help="Write the events of all flights as .geojson, .gpkg, .kml, .csv or .jsonl.")
@click.option("--json", "as_json", is_flag=True, help="Print each flight's answer as a JSON line.")
def command(archive: Path, bank: Path, flights: tuple[str, ...], persist: str, out: Path | None, as_json: bool) -> None:
    """Score an archive again with another label bank.

    Nothing is flown again: the kept embeddings are matched with BANK, and events and incidents are followed as in
    flight. The archive itself is not changed.

    \b
    overflight rescore archive flood.safetensors --out flood-events.geojson
    """
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.geofiles.export import FORMATS
    from overflight.station.archive import Archive
    from overflight.station.output import check_outputs
    from overflight.station.rescore import rescore

    check_outputs([out], [".jsonl", *(f".{name}" for name in FORMATS)])
    opened, target = LabelBank.load(bank), Archive(archive)
    chosen = [target.flight(name) for name in flights] or target.flights()
    rules = _rules(persist)
    answers = []
    for flight in chosen:
        answers.append(rescore(target, opened, flight, rules))
        _show(answers[-1], as_json=as_json)
    if out is not None:
        _write(out, answers)


def _rules(persist: str) -> EventRules:
    from overflight.runtime.decisions.event_tracker import EventRules
    from overflight.runtime.errors import UsageError

    hits, _, window = persist.partition("/")
    if not (hits.isdigit() and window.isdigit() and 1 <= int(hits) <= int(window)):
        raise UsageError(f"--persist {persist}: expected N/M with N at most M, such as 3/5")
    return EventRules(int(hits), int(window))


def _show(answer: Rescored, *, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(answer).decode())
        return
    frames = sum(answer.frames.values())
    click.echo(f"{answer.flight_name}: {frames} frames, {len({event.id for event in answer.events})} events")
    for label, count in sorted(answer.frames.items(), key=lambda pair: -pair[1]):
        tiles = f", {answer.tiles[label]} tiles" if answer.tiles.get(label) else ""
        click.echo(f"  {label or 'unknown'}: {count} frames ({count / frames:.0%}){tiles}")


def _write(out: Path, answers: list[Rescored]) -> None:
    from overflight.runtime.durable import write_atomically
    from overflight.runtime.errors import UsageError
    from overflight.runtime.geofiles.export import FORMATS
    from overflight.runtime.geofiles.layers import layers_of
    from overflight.runtime.records import encode_line

    events = [event for answer in answers for event in answer.events]
    if out.suffix.lower() == ".jsonl":
        write_atomically(out, b"".join(map(encode_line, events)))
        return
    layers, _ = layers_of([], events)
    if not layers:
        raise UsageError(f"{out}: none of the events has a place; write .jsonl for events without a place")
    FORMATS[out.suffix[1:].lower()](out, layers)
