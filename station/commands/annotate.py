"""``overflight annotate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("flight", type=click.Path(path_type=Path))
@click.option("--source", help="Where the recording or the folder lies now.  [default: as flown]")
@click.option("--json", "as_json", is_flag=True, help="Print the path as JSON.")
def command(flight: Path, source: str | None, as_json: bool) -> None:
    """Make the annotated video of a flight.

    Each frame of the source is drawn with its label, score and age. A live flight has no source any more: its video is
    made of the small pictures that the flight keeps. The next report of the flight shows the video.

    \b
    overflight annotate flights/first
    """
    import json

    from overflight.runtime.progress import shown_progress
    from overflight.station.annotate import annotate_flight

    with shown_progress() as report:
        out = annotate_flight(flight, source, watch=lambda share: report("drawing the video", share))
    click.echo(json.dumps({"video": str(out)}) if as_json else str(out))
