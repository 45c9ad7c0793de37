"""Gathering frames from whatever was filmed.

Covers: runtime/evaluation/duplicates.py.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime.bundle import Resize
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.frame_sampler import FrameSampler
from overflight.runtime.records import FlightRecord
from overflight.runtime.resize import Resizer
from overflight.runtime.sources.image import read_image

RESIZE = Resize(32, "bicubic", "squash")


def write_flight(folder: Path, source: str) -> Path:
    folder.mkdir()
    fields = {
        "schema": 1, "source": source, "host": "h", "versions": {}, "model": "m", "bundle": "b", "engine": "e",
        "engine_sha256": "s", "bank": "k", "bank_sha256": "s", "labels": (), "started_utc_ns": 0,
    }  # fmt: skip
    record = msgspec.convert(fields, FlightRecord)
    (folder / "flight.json").write_bytes(msgspec.json.encode(record))
    return folder


def test_frames_are_resized_exactly_as_in_flight(scenery: Path) -> None:
    """The same pixels that the runtime's own resizer makes: calibrating on others is a peers' fault."""
    gathered = next(iter(FrameSampler([str(scenery)], RESIZE, 1000).frames()))
    frame = read_image(scenery / str(gathered.folder) / str(gathered.name))
    expected = np.empty((32, 32, 3), np.uint8)
    Resizer(RESIZE).resize(frame.pixels, expected, frame.order)
    np.testing.assert_array_equal(gathered.pixels, expected)


def test_a_limit_is_spread_over_everything(scenery: Path) -> None:
    """A quarter of the frames comes from both folders."""
    gatherer = FrameSampler([str(scenery)], RESIZE, 24)
    frames = list(gatherer.frames())
    assert gatherer.found == 96
    assert len(frames) == 24
    assert {one.folder for one in frames} == {"field", "town"}


def test_a_flight_is_read_from_its_own_source(scenery: Path, tmp_path: Path) -> None:
    """The pictures that were flown over, not thumbnails."""
    flight = write_flight(tmp_path / "flight", str(scenery / "town"))
    assert FrameSampler([str(flight)], RESIZE, 1000).found == 48


def test_a_video_gives_frames_with_their_time(tmp_path: Path) -> None:
    """Evenly spread over its length."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in range(40):
        writer.write(np.full((48, 64, 3), level * 6, np.uint8))
    writer.release()
    frames = list(FrameSampler([str(path)], RESIZE, 8).frames())
    assert [one.number for one in frames] == list(range(0, 40, 5))
    means = [float(one.pixels.mean()) for one in frames]
    assert means == sorted(means)
    assert frames[-1].media_ns is not None


def test_what_cannot_be_read_is_counted_and_what_has_no_end_refused(scenery: Path, tmp_path: Path) -> None:
    """A torn picture costs itself; a camera, or nothing at all, is a wrong use."""
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    gatherer = FrameSampler([str(scenery), str(tmp_path)], RESIZE, 1000)
    assert len(list(gatherer.frames())) == 96
    assert gatherer.skipped == {"unreadable": 1}
    with pytest.raises(UsageError, match="record it first"):
        FrameSampler(["test://?fps=25"], RESIZE, 10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no frames"):
        FrameSampler([str(tmp_path / "empty")], RESIZE, 10)
