"""A whole flight with telemetry and a link: from a video and its subtitles to a web server and a map.

Covers: runtime/flight/banks.py, runtime/flight/preflight.py, runtime/flight/warnings.py, runtime/links/dispatch.py.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight import peripherals as module
from overflight.runtime.flight.banks import Banks
from overflight.runtime.flight.peripherals import PeripheralConfig, Peripherals, thumbnail
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.flight.warnings import Warnings
from overflight.runtime.frame import Frame
from overflight.runtime.geofiles import export_flight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overflight.runtime.bundle import Bundle

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video that turns red after a second, and subtitles that fly north at 5 m/s, 50 m above take-off."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    colours = np.random.default_rng(0).integers(0, 20, (30, 48, 64, 3))
    for number, noise in enumerate(colours):
        colour = (40, 40, 235) if number >= 10 else (40, 235, 40)
        writer.write((noise + colour).astype(np.uint8))
    writer.release()
    lines = []
    for second in range(4):
        lat = -20.0 + second * 4.5e-5
        lines.append(
            f"{second + 1}\n00:00:0{second},000 --> 00:00:0{second},900\n"
            f"F/2.8, GPS (149.000000, {lat:.6f}, 15), H 50.00m, F.PRY (0.0°, 0.0°, 0.0°), G.PRY (-90.0°, 0.0°, 0.0°)\n"
        )
    (tmp_path / "clip.srt").write_text("\n".join(lines))
    return path


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Return a web server's address and what it was sent."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_flight_says_where_and_to_whom(
    colour_bundle: Bundle, colour_bank: LabelBank, video: Path, hook: tuple[str, list[tuple[str, bytes]]]
) -> None:
    """The link gets each event with its place and one picture, and the map shows the footprints and the events."""
    uri, got = hook
    peripherals = PeripheralConfig(str(video.with_suffix(".srt")), "hfov=71.6", (uri,), video.parent / "outbox.sqlite")
    reported: list[Event] = []
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(
            overflight,
            str(video),
            video.parent / "flight",
            FlightConfig(peripherals=peripherals),
            on_event=reported.append,
        )
    events = [msgspec.json.decode(body, type=Event) for kind, body in got if kind == "application/json"]
    assert sorted(events, key=lambda event: event.key) == sorted(reported, key=lambda event: event.key)
    red = [event for event in events if event.label == "red"]
    assert [event.type for event in red] == ["begin", "end"]
    assert red[0].place is not None
    assert red[0].place.lat_deg == pytest.approx(-20.0 + 1.2 * 4.5e-5, abs=2e-5)
    assert (len(red[0].place.footprint), red[0].incident) == (4, red[0].id)
    pictures = [body for kind, body in got if kind == "image/jpeg"]
    assert len(pictures) == len([event for event in events if event.type == "begin"])
    assert cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    exported = export_flight(video.parent / "flight", ["geojson"])
    assert exported.features == {"footprints": 30, "observations": 30, "track": 1, "events": 2}
    assert exported.without_position == 0


def test_wrong_addresses_end_before_the_flight_begins(
    colour_bundle: Bundle, colour_bank: LabelBank, video: Path, tmp_path: Path
) -> None:
    """Nothing is written, nothing replaced, for an address that cannot be opened."""
    for peripherals, error in (
        (PeripheralConfig(camera="hfov=70"), UsageError),
        (PeripheralConfig(pose=str(tmp_path / "none.srt")), UsageError),
        (PeripheralConfig(links=("ftp://x",)), UsageError),
    ):
        with Overflight.load(colour_bundle, colour_bank) as overflight, pytest.raises(error):
            fly(overflight, str(video), tmp_path / "flight", FlightConfig(peripherals=peripherals))
        assert not (tmp_path / "flight").exists()


def test_a_bank_before_the_flight_is_refused(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """A bank that arrives before the flight has begun gets an error, and the flight's first bank stays."""
    path = tmp_path / "bank.safetensors"
    colour_bank.save(path)
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        banks = Banks(overflight)
        with pytest.raises(OverflightError, match="has not begun"):
            banks.take(path.read_bytes())


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_thumbnail_keeps_its_colours(order: str) -> None:
    """160 pixels wide, red stays red whatever the frame's channel order."""
    red = [200, 30, 30] if order == "rgb" else [30, 30, 200]
    frame = Frame(np.full((720, 1280, 3), red, np.uint8), 0, 0, order="rgb" if order == "rgb" else "bgr")
    jpeg = thumbnail(frame)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (90, 160, 3)
    assert shown[45, 80, 2] > 180
    assert shown[45, 80, 0] < 60
    assert len(jpeg) < 4000


def test_a_link_that_can_never_send_says_so(
    colour_bundle: Bundle, colour_bank: LabelBank, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A marker on a map needs a position: one line at the start, and every event that is given up is counted."""
    config = PeripheralConfig(links=("cot+udp://127.0.0.1:9",), outbox=video.parent / "outbox.sqlite")
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        fly(overflight, str(video), video.parent / "flight", FlightConfig(peripherals=config))
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (warning,) = [line for line in lines if line["what"] == "warning"]
    assert warning["part"] == "link cot+udp://127.0.0.1:9"
    assert "sends nothing without positions; name the telemetry with --pose" in warning["reason"]
    (status,) = [line for line in lines if line["what"] == "link"]
    assert (status["sent"], status["waiting"]) == (0, 0)
    assert status["shed"]["event-without-position"] >= 2


def test_telemetry_that_never_arrives_is_a_warning_and_counted(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds without any pose; it is taken back with the first one."""
    monkeypatch.setattr(module, "UNLOCATED_S", 0.0)
    warnings = Warnings()
    peripherals = Peripherals(PeripheralConfig(str(video.with_suffix(".srt"))), str(video), lambda raw: "", warnings)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0)
    for _ in range(3):
        peripherals.update(frame, located=False)
    assert "check --pose" in warnings.current["telemetry"]
    assert (peripherals.without_pose, warnings.counts["telemetry"]) == (3, 1)
    peripherals.update(frame, located=True)
    assert warnings.current == {}
    peripherals.close()
