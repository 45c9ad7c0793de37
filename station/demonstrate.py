"""The demo: fly over the film that is shipped, and leave a flight that a person can look at."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.flight.live_line import LiveLine
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.overflight import Overflight
from overflight.station.annotate import annotate
from overflight.station.demonstrate_archive import demonstrate_archive
from overflight.station.film import FPS
from overflight.station.report import REPORT, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overflight.station.demonstrate_archive import Answered
    from overflight.station.summary import Summary

DEMO = Path(__file__).parent / "demo"
FILM = DEMO / "flight.mp4"
LABELS = DEMO / "demo.toml"
BANK = "labels/demo.safetensors"  # compiled from LABELS when the default model's bundle is made


class Demonstration(NamedTuple):
    """What a demo left: its figures, where its parts lie, and what its archive answered."""

    summary: Summary
    video: Path
    report: Path
    answers: list[Answered]


def load() -> Overflight:
    """Load the default model with the demo's labels. Raises MissingError where its bundle is not there."""
    bundle = Bundle.open(default_bundle())
    return Overflight.load(bundle, bundle.file(BANK))


def demonstrate(overflight: Overflight, out: Path, *, replace: bool = False, silent: bool = False) -> Demonstration:
    """Fly over the film, draw the annotated video and write the report, all into the flight directory ``out``.

    Progress is shown on the terminal, unless ``silent``. Raises UsageError where ``out`` holds something else.
    """
    with LiveLine(silent=silent) as line:
        record = fly(overflight, str(FILM), out, FlightConfig(replace=replace), on_observation=line.watch)
    with _progress("drawing the video", record.observed, silent=silent) as watch:
        video = annotate(out, str(FILM), FPS, watch=watch)
    answers = []
    if "text.onnx" in overflight.bundle.manifest.files:
        with LiveLine(silent=silent) as line:
            answers = demonstrate_archive(overflight, out, watch=line.watch)
    return Demonstration(write_report(out), video, out / REPORT, answers)


@contextmanager
def _progress(what: str, total: int, *, silent: bool) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=silent or not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, completed=count)
