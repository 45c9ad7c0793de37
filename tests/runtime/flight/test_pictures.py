"""Small pictures of a flight: which frames get one, and what it weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.decisions.decide import Decision
from overflight.runtime.event import Event
from overflight.runtime.flight.pictures import PictureChooser, small_jpeg
from overflight.runtime.frame import Frame
from overflight.runtime.observe import FrameResult
from overflight.runtime.records import Costs, Observation

FRAME = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0)
NORTH = np.array([1, 0, 0], np.float32)


def result(
    seconds: float, label: str | None = None, score: float = 0.5, embedding: Any = NORTH, captured_s: float = 0
) -> FrameResult:
    observation = Observation(
        0, round(captured_s * 1e9), 0, label, (), Costs(0, 0, 0), "", "", media_ns=round(seconds * 1e9)
    )
    present = {} if label is None else {label: score}
    return FrameResult(FRAME, observation, embedding, Decision(label, present, present), np.empty((0, 3), np.float32))


def test_there_is_a_picture_every_few_seconds_of_the_recording() -> None:
    """However fast it is processed, and never more than one a second without an event."""
    chooser = PictureChooser()
    found = [chooser.reasons(result(n / 10), ()) for n in range(301)]
    assert [n / 10 for n, reasons in enumerate(found) if reasons] == [0, 5, 10, 15, 20, 25, 30]
    assert set(found) == {(), ("interval",)}


def test_changes_of_label_surer_and_novel_frames_get_one() -> None:
    """Each says why."""
    chooser = PictureChooser()
    random = np.random.default_rng(0)

    def near() -> NDArray[np.float32]:
        vector: NDArray[np.float32] = NORTH + 0.02 * random.standard_normal(3).astype(np.float32)
        vector /= np.linalg.norm(vector)
        return vector

    script = [("road", 0.5)] * 20 + [("river", 0.5)] * 20 + [("river", 0.8)] * 20 + [("river", 0.8)] * 20
    found = {}
    for n, (label, score) in enumerate(script):
        embedding = np.array([0, 1, 0], np.float32) if n == 75 else near()
        if reasons := chooser.reasons(result(n / 10, label, score, embedding), ()):
            found[n] = reasons
    assert found[0] == ("label", "surest", "interval")
    assert found[20] == ("label", "surest")
    assert found[40] == ("surest",)
    assert "novel" in found[75]
    assert len(found) <= 6


def test_an_event_always_gets_one() -> None:
    """Also within a second of the last picture; a change of an event is no new thing to see."""
    chooser = PictureChooser()
    chooser.reasons(result(0.0), ())
    event = Event("f-1", "begin", "road", None, None, 1, 0.5)
    assert chooser.reasons(result(0.1), (event,)) == ("event",)
    assert chooser.reasons(result(0.2), (Event("f-1", "change", "road", None, None, 1, 0.9),)) == ()


def test_the_choice_is_the_recordings() -> None:
    """The same frames at another speed get the same pictures."""
    slow, fast = PictureChooser(), PictureChooser()
    labels = ["road", "river", None]
    for n in range(200):
        label = labels[n // 13 % 3]
        assert slow.reasons(result(n / 7, label, captured_s=n), ()) == fast.reasons(result(n / 7, label), ())


def test_a_picture_weighs_about_ten_kilobytes() -> None:
    """320 pixels across, in the right colours, whatever the camera's size and order."""
    cv2 = pytest.importorskip("cv2")
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    coarse[:, :, 2] = 250
    pixels = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    for order, channel in (("bgr", 2), ("rgb", 2)):
        jpeg = small_jpeg(Frame(pixels, 0, 0, order=order))  # type: ignore[arg-type]
        assert 3_000 < len(jpeg) < 15_000
        small = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert small.shape == (180, 320, 3)
        red = small[:, :, channel if order == "bgr" else 0]
        assert red.mean() > 200
    tiny = small_jpeg(Frame(np.zeros((48, 64, 3), np.uint8), 0, 0))
    assert cv2.imdecode(np.frombuffer(tiny, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
