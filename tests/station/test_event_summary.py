"""The events of a flight, as its report shows them, on its table and on its map.

Covers: station/event_table.py, station/map.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from overflight.runtime.event import Event
from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.record import Pose
from overflight.runtime.records import Observation
from overflight.station.chart import colours
from overflight.station.event_table import MOST, tabulate_events
from overflight.station.map import draw_map
from overflight.station.page import tag
from overflight.station.report import make_report, title
from overflight.station.summary import Summary, summarise

MakeFlight = Callable[..., Path]


def write_events(flight: Path, *events: Event) -> Summary:
    (flight / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    return summarise(flight)


def step(kind: str, label: str, frame: int, number: int = 1, **given: object) -> Event:
    """Make one step of an event that began at frame 10, in a recording of 25 frames a second."""
    event = Event(f"f-{number}", kind, label, None, None, frame, 0.4, started_frame=10)  # type: ignore[arg-type]
    return msgspec.structs.replace(event, **given)


def page_text(summary: Summary) -> str:
    return re.sub(r"<[^>]+>", " ", make_report(summary).decode())


def test_an_event_is_its_steps_together(make_flight: MakeFlight) -> None:
    """Begin, change and end make one row: when it began, how long it lasted, its best score."""
    flight = make_flight(["meadow"] * 100)
    steps = step("begin", "meadow", 12), step("end", "meadow", 60, score=0.7, lasted_ns=2_000_000_000)
    summary = write_events(flight, *steps)
    (event,) = summary.events
    assert (event.label, event.first, event.last, event.lasted, event.ended) == ("meadow", 10, 60, 2.0, True)
    assert event.score == 0.7
    assert "2.0 s" in page_text(summary)


def test_an_event_without_an_end_lasts_to_the_end(make_flight: MakeFlight) -> None:
    """As it is after a power cut."""
    (event,) = write_events(make_flight(["meadow"] * 100), step("begin", "meadow", 12)).events
    assert (event.last, event.ended, round(event.lasted, 2)) == (99, False, 3.56)


def test_a_label_that_was_never_the_best_is_not_called_never_seen(make_flight: MakeFlight) -> None:
    """It was present next to a better one, for as long as its events say."""
    steps = step("begin", "water", 12), step("end", "water", 60, lasted_ns=2_000_000_000)
    summary = write_events(make_flight(["meadow"] * 100), *steps)
    (water,) = [label for label in summary.labels if label.label == "water"]
    assert (water.count, water.events, water.present) == (0, 1, 2.0)
    text = page_text(summary)
    assert "1 in 2.0 s" in text
    assert "water" not in text.partition("Never seen")[2].partition(".")[0]


def test_a_flickering_label_makes_no_endless_table(make_flight: MakeFlight) -> None:
    """So many events are shown, the others are counted."""
    many = [step("begin", "meadow", 12, number) for number in range(MOST + 7)]
    summary = write_events(make_flight(["meadow"] * 100), *many)
    table = tabulate_events(summary, colours(summary), {})
    assert table is not None
    assert len(table.findall(".//tbody/tr")) == MOST
    assert "7 more events" in page_text(summary)


def located(seen: Observation) -> Observation:
    """Fly north, 2 m a frame, each frame 40 m wide."""
    lat, lon = 49 + seen.frame * 2 / 111_320, 8.0
    square = ((lon - 3e-4, lat - 2e-4), (lon + 3e-4, lat - 2e-4), (lon + 3e-4, lat + 2e-4), (lon - 3e-4, lat + 2e-4))
    return msgspec.structs.replace(seen, pose=Pose(0, lat, lon), place=Place(lat, lon, 5.0, square))


def test_the_map_shows_track_footprints_and_events(make_flight: MakeFlight) -> None:
    """The track runs north, which is up; the event is where its frame was; nothing leaves the drawing."""
    summary = write_events(make_flight(["meadow"] * 100, located), step("begin", "meadow", 12))
    section = draw_map(summary, colours(summary))
    assert section is not None
    drawing = section.find("svg")
    assert drawing is not None
    width, height = map(float, drawing.attrib["viewBox"].split()[2:])
    track = [tuple(map(float, point.split(","))) for point in drawing.find("polyline").attrib["points"].split()]  # type: ignore[union-attr]
    assert track[0][1] > track[-1][1]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in track)
    assert len(drawing.findall("polygon")) == 100
    marker = drawing.find("g/circle")
    assert marker is not None
    assert abs(float(marker.attrib["cy"]) - track[10][1]) < 0.2
    assert "49.00018, 8.00000 ± 5 m" in page_text(summary)


def test_without_positions_there_is_no_map(make_flight: MakeFlight) -> None:
    """A flight without telemetry has none."""
    summary = summarise(make_flight(["meadow"] * 3))
    assert draw_map(summary, colours(summary)) is None
    assert tabulate_events(summary, colours(summary), {}) is None


def test_banks_and_skipped_frames_are_told_apart(make_flight: MakeFlight) -> None:
    """A new bank in flight is listed with its time; what was skipped on request is not lost."""

    def later(seen: Observation) -> Observation:
        return msgspec.structs.replace(
            seen, bank="d" * 16 if seen.frame >= 50 else "c" * 16, skipped={"fps": 4}, dropped={}
        )

    summary = summarise(make_flight(["meadow"] * 100, later))
    assert summary.bank_rows == [50]
    assert (summary.skipped, summary.dropped) == ({"fps": 400}, {})
    text = page_text(summary)
    assert "Frames skipped on request" in text
    assert "d" * 16 in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("recordings/first.mp4", "first.mp4"),
        ("/data/stills/", "stills"),
        ("file:///data/first%20one.mp4", "first%20one.mp4"),
        ("test://?fps=5&size=64x48", "Test picture"),
        ("csi://0", "Camera 0"),
        ("/dev/video2", "Camera video2"),
        ("v4l2:///dev/video0", "Camera video0"),
        ("rtsp://pilot:***@192.168.144.25:8554/main", "RTSP stream 192.168.144.25:8554"),
        ("udp://@:5600", "UDP stream :5600"),
        ("gst://videotestsrc ! videoconvert", "GStreamer pipeline"),
    ],
)
def test_every_source_has_a_title(source: str, expected: str) -> None:
    """Cameras, streams and test pictures have no file name."""
    assert title(source) == expected


def test_the_page_stays_an_element_tree(make_flight: MakeFlight) -> None:
    """A hostile label is text in the table and on the map too."""
    hostile = "</svg><script>alert(1)</script>"
    summary = write_events(make_flight([hostile] * 30, located), step("begin", hostile, 12))
    assert b"<script>alert" not in make_report(summary)
    assert tag("p").tag == "p"
