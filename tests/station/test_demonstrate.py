"""The demo: everything it promises is there, and is what it says.

Covers: station/commands/demo.py, station/demonstrate_archive.py.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime import Overflight
from overflight.runtime.bundle import default_bundle
from overflight.runtime.errors import UsageError
from overflight.station import demonstrate as demonstration
from overflight.station.annotate import encode
from overflight.station.commands.demo import _when_unknown, command
from overflight.station.demonstrate import LABELS, demonstrate
from overflight.station.summary import read

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle

FRAMES = 625
cv2 = pytest.importorskip("cv2")


@pytest.mark.slow
def test_a_flight_to_look_at(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """Every frame of the film has its observation, and the video, the report and the journal lie next to them."""
    out = tmp_path / "demo"
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        left = demonstrate(overflight, out, silent=True)
        with pytest.raises(UsageError, match="--replace"):
            demonstrate(overflight, out, silent=True)
    observations, unreadable = read(out)
    assert [seen.frame for seen in observations] == list(range(FRAMES))
    assert unreadable == 0
    assert {seen.label for seen in observations} >= {"green"}  # forests and meadows, for the tower of mean colours
    capture = cv2.VideoCapture(str(left.video))
    assert sum(1 for _ in iter(capture.grab, False)) == FRAMES
    page = left.report.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 2
    assert len(page) < 2_000_000
    assert {path.name for path in out.iterdir()} >= {"flight.json", "observations.jsonl", "journal.sqlite"}


@pytest.mark.slow
def test_the_demo_archive_answers(tmp_path: Path) -> None:
    """Three flights, a beach that is found with its pictures, and a stadium that is not found."""
    from overflight.runtime.bundle import Bundle as AnyBundle
    from overflight.runtime.flight.run import fly
    from overflight.station.archive import Archive
    from overflight.station.demonstrate_archive import demonstrate_archive

    if not (default_bundle() / "text.onnx").is_file():
        pytest.skip("no default bundle; run: make bundle")
    bundle = AnyBundle.open(default_bundle())
    with Overflight.load(bundle) as overflight:
        fly(overflight, "test://?frames=5&fps=0&size=64x48", tmp_path / "flight")
        answers = demonstrate_archive(overflight, tmp_path / "flight", watch=lambda stream, observation: None)
    assert len(Archive(tmp_path / "flight" / "archive").flights()) == 3
    beach, *_, stadium = answers
    page, sheet, places = beach.files
    written = page.read_text(encoding="utf-8")
    assert "data:image/jpeg" in written
    assert written.count('class="map"') >= 1
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    assert places.read_bytes()[:2] == b"PK"
    assert stadium.answer.startswith("Not found")
    assert stadium.files == ()


def test_command(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says what it left, in words and in JSON."""
    film = tmp_path / "short.mp4"
    encode(iter([np.full((120, 160, 3), (20, 200, 20), np.uint8)] * 5), film, 25.0)
    monkeypatch.setattr(demonstration, "FILM", film)
    monkeypatch.setattr(demonstration, "load", lambda: Overflight.load(colour_bundle, colour_bank))
    out = str(tmp_path / "demo")
    said = json.loads(CliRunner().invoke(command, ["--out", out, "--json"], catch_exceptions=False).output)
    assert said["observations"] == 5
    assert said["shares"] == {"green": 1.0}
    reported = CliRunner().invoke(command, ["--out", out, "--replace"], catch_exceptions=False).output.splitlines()
    assert [line.split()[0] for line in reported] == ["5", "median", "seen:", "report", "video"]
    assert reported[2] == "seen: green 100%"


def test_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model has the demo's labels, and answers on the film's own frames."""
    if not (default_bundle() / "manifest.json").exists():
        pytest.skip("the default model's bundle is not built; run: make bundle")
    capture = cv2.VideoCapture(str(demonstration.FILM))
    excerpt = tmp_path / "excerpt.mp4"
    encode(iter([capture.read()[1] for _ in range(5)]), excerpt, 25.0)
    monkeypatch.setattr(demonstration, "FILM", excerpt)
    with demonstration.load() as overflight:
        left = demonstrate(overflight, tmp_path / "demo", silent=True)
    assert len(left.summary) == 5
    assert {label.label for label in left.summary.labels} <= {None, *left.summary.record.labels}


def test_labels_of_the_demo() -> None:
    """The demo's label file is read without a mistake, and holds backgrounds."""
    label_file = pytest.importorskip("overflight.export.label_file")
    prompts = pytest.importorskip("overflight.export.prompts")
    file = label_file.read_label_file(LABELS, prompts.read_templates(prompts.DEFAULT))
    assert sum(entry.background for entry in file.entries) >= 1
    assert sum(not entry.background for entry in file.entries) >= 4


def test_the_summary_says_where_the_film_is_unknown() -> None:
    """Parts of a second or more, by their times; flickers are left out, and a film without any says nothing."""
    answers = [None] * 3 + ["meadow"] * 2 + [None] + ["forest"] * 2 + [None] * 2
    columns = {"times": np.arange(10) * 0.5, "weights": np.full(10, 0.5)}
    summary = SimpleNamespace(answers=answers, **columns)
    expected = "unknown: 0.0 to 1.5 s, 4.0 to 5.0 s, where no label was near enough\n"
    assert _when_unknown(summary) == expected  # type: ignore[arg-type]
    assert _when_unknown(SimpleNamespace(answers=["meadow"] * 10, **columns)) == ""  # type: ignore[arg-type]
