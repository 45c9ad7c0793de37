"""The report: whole, self-contained and harmless, whatever the flight holds.

Covers: station/commands/report.py, station/page.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.station.commands.report import command
from overflight.station.page import data, page, tag
from overflight.station.report import surest, write_report
from overflight.station.summary import summarise

if TYPE_CHECKING:
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.records import Observation

MakeFlight = Callable[..., Path]
HOSTILE = "</script><script>alert('label')</script>"
FILM = Path(__file__).parents[2] / "station" / "demo" / "flight.mp4"


class _Reader(HTMLParser):
    """Collects what a browser would see: tags, addresses, texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "data", "action", "poster"}]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _read(flight: Path) -> tuple[_Reader, str]:
    write_report(flight)
    text = (flight / "report.html").read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    return reader, text


def test_names_every_label_and_reason(make_flight: MakeFlight) -> None:
    """Every label seen, every label never seen, every reason for a loss and the flight's origin are on the page."""
    flight = make_flight(["meadow"] * 20 + ["dense forest & fen"] * 30 + [None] * 5, dropped={"frozen": 7})
    reader, _ = _read(flight)
    for text in ("meadow", "dense forest & fen", "unknown", "frozen", "recordings/first.mp4", "c" * 16):
        assert any(text in found for found in reader.texts), text
    assert any("Never seen" in text and "water" in text for text in reader.texts)


def test_asks_for_nothing_else(make_flight: MakeFlight) -> None:
    """The page addresses nothing outside itself but the flight's own video next to it."""
    flight = make_flight(["meadow"] * 60, source=str(FILM))
    (flight / "annotated.mp4").touch()
    reader, text = _read(flight)
    pictures = [address for address in reader.addresses if address.startswith("data:image/jpeg;base64,")]
    assert pictures
    assert [address for address in reader.addresses if address not in pictures] == ["annotated.mp4"]
    assert not re.search(r"https?://|url\(|@import|link rel", text.replace("http://www.w3.org/2000/svg", ""))


def test_hostile_label_stays_text(make_flight: MakeFlight) -> None:
    """A label that closes the script element is shown, never run."""
    reader, _ = _read(make_flight([HOSTILE] * 30, source=f"{HOSTILE}.mp4", host=HOSTILE, dropped={HOSTILE: 1}))
    assert reader.tags.count("script") == 2  # the page's data and the page's own script
    assert HOSTILE in reader.texts
    carried = next(text for text in reader.texts if text.startswith('{"labels"'))
    assert json.loads(carried)["labels"] == [HOSTILE]


@settings(max_examples=30)
@given(text=st.text())
def test_any_text_is_only_text(text: str) -> None:
    """No text, as child, attribute or data, makes an element or ends one."""
    raw = page(text, [tag("p", text, title=text), data("carried", text)], style="report.css", script="report.js")
    reader = _Reader()
    reader.feed(raw.decode())
    assert reader.tags == ["html", "head", "meta", "meta", "meta", "title", "style", "body", "p", "script", "script"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_flights(make_flight: MakeFlight, count: int) -> None:
    """A flight of no frame, one or two still makes a page."""
    reader, _ = _read(make_flight(["meadow"] * count))
    assert "main" in reader.tags
    assert reader.texts.count("No frame was observed.") == (count == 0)


def test_labels_of_every_bank_count(make_flight: MakeFlight, colour_bank: LabelBank) -> None:
    """A bank that was sent in flight brings its labels, also those that were never seen."""
    later = colour_bank.sha256[:16]
    flight = make_flight(
        ["meadow"] * 3 + ["red"] * 3,
        lambda seen: msgspec.structs.replace(seen, bank=later) if seen.frame > 2 else seen,
    )
    (flight / "banks").mkdir()
    colour_bank.save(flight / "banks" / f"{later}.safetensors")
    _, text = _read(flight)
    brought = [label.text for label in colour_bank.header.labels if not label.background]
    assert f"2 of {4 + len(brought)}" in text
    assert f"then “{colour_bank.header.name}”" in text
    unseen = text[text.index("Never seen") :]
    assert all(label in unseen[: unseen.index("</p>")] for label in brought if label != "red")


def test_torn_line_is_said(make_flight: MakeFlight) -> None:
    """The page says that a line was torn."""
    flight = make_flight(["meadow"] * 5)
    lines = flight / "observations.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])
    reader, _ = _read(flight)
    assert any("1 torn line" in text for text in reader.texts)


def test_missing_end_is_said(make_flight: MakeFlight) -> None:
    """A flight without a recorded end is distinguished from one that ended."""
    reader, _ = _read(make_flight(["meadow"] * 5, ended_because=None, ended_utc_ns=None, observed=0))
    assert any("no recorded end" in text for text in reader.texts)


@pytest.mark.slow
def test_long_flight_makes_a_small_page(make_flight: MakeFlight) -> None:
    """100,000 observations fold into a page below 3 MB, in seconds; what flickered is still in the table."""
    names = ["meadow", "water", None, "dense forest & fen"]
    answers = [names[frame // 5_000 % 4] for frame in range(100_000)]
    answers[50_123] = HOSTILE
    flight = make_flight(answers)
    began = time.process_time()
    reader, text = _read(flight)
    assert time.process_time() - began < 20
    assert len(text) < 3_000_000
    assert HOSTILE in reader.texts


def test_surest_frames_are_spread(make_flight: MakeFlight) -> None:
    """The surest frames of a label are its highest scores, not neighbours of one moment."""
    summary = summarise(make_flight(["meadow"] * 500))
    picked = surest(summary, summary.labels[0])
    assert len(picked) == 4
    assert summary.scores[picked].max() == summary.scores.max()
    assert min(np.diff(summary.times[picked])) >= 500 * 0.04 / 25


def test_pictures_of_stills(make_flight: MakeFlight, tmp_path: Path) -> None:
    """Stills are shown from their folder by name; one that has gone is left out."""
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "stills").mkdir()
    cv2.imwrite(str(tmp_path / "stills" / "IMG_0.png"), np.full((30, 40, 3), 200, np.uint8))

    def still(seen: Observation) -> Observation:
        return msgspec.structs.replace(seen, media_ns=None, name=f"IMG_{seen.frame}.png")

    reader, _ = _read(make_flight(["meadow", "meadow"], still, source=str(tmp_path / "stills")))
    assert len([address for address in reader.addresses if address.startswith("data:")]) == 1


def test_command(make_flight: MakeFlight, tmp_path: Path) -> None:
    """The command writes to the given path and prints the figures."""
    out = tmp_path / "elsewhere.html"
    result = CliRunner().invoke(command, [str(make_flight(["meadow"] * 3)), "-o", str(out), "--json"])
    assert result.exit_code == 0
    said = json.loads(result.output)
    assert said["report"] == str(out)
    assert said["shares"] == {"meadow": 1.0}
    assert said["bytes"] == out.stat().st_size
