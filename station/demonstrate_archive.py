"""The demo's archive: three flights, three sentences, and what the search leaves next to the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from overflight.station.archive import Archive
from overflight.station.archive.sources import add_source
from overflight.station.search.report import run
from overflight.station.search.wall import answer_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream

DEMO = Path(__file__).parent / "demo"
CLIP, TRACK, LENS = DEMO / "karma.mp4", DEMO / "karma.csv", "hfov=69.5,gimbal=-15"
STILLS = DEMO / "brighton"
SENTENCES = ("a beach", "a square with lawns", "a football stadium")  # the last is nowhere in the archive


class Answered(NamedTuple):
    """A sentence, the answer in words, and the files with pictures and maps; none where nothing was found."""

    sentence: str
    answer: str
    files: tuple[Path, ...]


def demonstrate_archive(
    overflight: Overflight, flight: Path, *, watch: Callable[[Stream, Observation], None]
) -> list[Answered]:
    """Add the demo's flight, a drone clip and a survey's stills to an archive in the flight's folder, and search it."""
    archive = Archive(flight / "archive")
    archive.add(flight, name="demo film")
    add_source(archive, CLIP, overflight, pose=str(TRACK), camera=LENS, on_observation=watch)
    add_source(archive, STILLS, overflight, on_observation=watch)
    return [_search(archive, overflight, flight, sentence) for sentence in SENTENCES]


def _search(archive: Archive, overflight: Overflight, flight: Path, sentence: str) -> Answered:
    from overflight.station.search import Filters

    name = sentence.replace(" ", "-")
    page, sheet, places = (flight / f"search-{name}.{ending}" for ending in ("html", "png", "kmz"))
    found, _ = run(
        archive.directory,
        [sentence],
        filters=lambda rows: Filters(rows_in=rows),
        bundle=overflight.bundle.directory,
        wall=[page, sheet],
        out=[places],
    )
    if not found.hits:
        for path in (page, sheet, places):
            path.unlink()
        return Answered(sentence, answer_text(found), ())
    return Answered(sentence, answer_text(found), (page, sheet, places))
