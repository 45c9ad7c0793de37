"""The annotated video.

Covers: station/commands/annotate.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.flight.run import fly
from overflight.station.annotate import annotate, annotate_flight, draw, encode
from overflight.station.commands.annotate import command
from overflight.station.report import write_report
from overflight.station.summary import read

cv2 = pytest.importorskip("cv2")
MakeFlight = Callable[..., Path]


def _frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    return count


@pytest.mark.parametrize("pyav", [True, False])
def test_one_frame_drawn_per_frame_flown(
    make_flight: MakeFlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyav: bool
) -> None:
    """The video has every frame of the source, with PyAV and without, at odd sizes too; no partial file stays."""
    if pyav:
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    stills = tmp_path / "stills"
    stills.mkdir()
    for number in range(12):
        cv2.imwrite(str(stills / f"{number}.png"), np.full((241, 639, 3), 20 * number, np.uint8))
    flight = make_flight(["meadow"] * 10)  # two frames of the source were never observed
    counts: list[int] = []
    out = annotate(flight, str(stills), 25.0, watch=counts.append)
    assert _frames(out) == 12
    assert counts == list(range(1, 13))
    assert sorted(path.name for path in flight.iterdir()) == ["annotated.mp4", "flight.json", "observations.jsonl"]


def test_writing_changes_with_the_observation(make_flight: MakeFlight) -> None:
    """Label, score and frame number are drawn: other values, other pixels; the picture below stays as it was."""
    one, two = read(make_flight(["meadow", "water"]))[0]
    drawn = []
    for number, seen in ((1, one), (1, two), (2, one), (1, None)):
        pixels = np.full((540, 960, 3), 128, np.uint8)
        draw(pixels, number, seen, {"meadow", "water"})
        assert (pixels[90:] == 128).all()
        drawn.append(pixels.tobytes())
    assert len(set(drawn)) == 4


def test_any_flight_can_be_annotated(make_flight: MakeFlight, tmp_path: Path) -> None:
    """From the source that its record names, wherever it is now; else what to do is one line."""
    stills = tmp_path / "stills"
    stills.mkdir()
    for number in range(4):
        cv2.imwrite(str(stills / f"{number}.png"), np.full((240, 640, 3), 20 * number, np.uint8))
    flight = make_flight(["meadow"] * 4, source="/moved/away")
    with pytest.raises(UsageError, match="name the source with --source"):
        annotate_flight(flight)
    result = CliRunner().invoke(command, [str(flight), "--source", str(stills), "--json"])
    assert result.exit_code == 0, result.output
    assert _frames(Path(json.loads(result.output)["video"])) == 4


def test_a_live_flight_is_annotated_from_its_own_pictures(
    colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """A camera cannot be asked again: the small pictures of the journal are drawn, and shown in the report."""
    pytest.importorskip("onnxruntime")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(overflight, "test://?frames=12&fps=50&size=64x48", tmp_path / "flight")
    kept = len(list(JournalReader(tmp_path / "flight" / "journal.sqlite").pictures()))
    assert kept >= 1
    assert _frames(annotate_flight(tmp_path / "flight")) == kept
    write_report(tmp_path / "flight")
    assert "data:image/jpeg;base64," in (tmp_path / "flight" / "report.html").read_text()


def test_failed_encoding_leaves_nothing(make_flight: MakeFlight, tmp_path: Path) -> None:
    """A source that fails half-way leaves no half video."""
    flight = make_flight(["meadow"])
    with pytest.raises(Exception, match="no such file"):
        annotate(flight, str(tmp_path / "gone.mp4"), 25.0)
    assert not list(flight.glob("*annotated*"))


def test_h264_where_pyav_is(tmp_path: Path) -> None:
    """With PyAV the codec is H.264, which browsers play."""
    av = pytest.importorskip("av")
    out = tmp_path / "out.mp4"
    encode(iter([np.zeros((64, 64, 3), np.uint8)] * 3), out, 25.0)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == 25
