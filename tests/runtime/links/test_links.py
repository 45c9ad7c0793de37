"""Each link against its real other end.

Covers: runtime/links/address.py, runtime/links/cot.py, runtime/links/mavlink.py, runtime/links/mqtt.py,
runtime/links/ros2.py.
"""

from __future__ import annotations

import json
import socket
import types
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.links import Links
from overflight.runtime.links.address import LinkAddress
from overflight.runtime.links.cot import marker
from overflight.runtime.links.mavlink import text
from overflight.runtime.links.ros2 import classification
from overflight.runtime.pose.footprint import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Step = Callable[..., Event]
    Wait = Callable[..., bool]


def test_mqtt_says_new_update_end(broker: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """Presence is retained, each step tells what was before and after, the picture has a topic of its own."""
    links = Links.open([broker.uri], tmp_path / "o.sqlite")
    links.publish(step(1), b"\xff\xd8jpeg")
    assert wait(lambda: len(broker.keys) == 1)
    links.publish(step(1, "change", 1))
    assert wait(lambda: len(broker.keys) == 2)
    links.publish(step(1, "end", 2))
    assert wait(lambda: len(broker.keys) == 3 and len(broker.topic("of/thumbnails/flight-1")) == 1)
    (status,) = links.close()
    assert (status.waiting, status.trouble, status.sent) == (0, None, 4)
    reported = [json.loads(payload) for payload in broker.topic("of/events")]
    assert [one["type"] for one in reported] == ["new", "update", "end"]
    assert reported[0]["before"] is None
    assert reported[1]["before"] == reported[0]["after"]
    assert reported[2]["after"]["place"]["error_m"] == 5.0
    assert broker.topic("of/thumbnails/flight-1") == [b"\xff\xd8jpeg"]
    assert wait(lambda: broker.topic("of/available") == [b"online", b"stopped"])


def test_mqtt_comes_back_online_by_itself(broker: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """After the broker was away, an idle link says online again and delivers what was published meanwhile."""
    links = Links.open([broker.uri], tmp_path / "o.sqlite")
    assert wait(lambda: broker.topic("of/available") == [b"online"])
    broker.stop()
    links.publish(step(1))
    broker.start()
    assert wait(lambda: broker.keys == ["flight-1/0"] and broker.topic("of/available")[-1] == b"online")
    assert broker.topic("of/available")[1] == b"offline"
    links.close()


def test_a_bank_from_the_ground(broker: Any, wait: Wait, tmp_path: Path) -> None:
    """bank/set reaches the callback, its hash or its error is retained on bank/state; without a callback nothing is."""

    def on_bank(raw: bytes) -> str:
        if raw != b"good":
            raise OverflightError("bank: not a label bank; expected safetensors")
        return "abc123"

    links = Links.open([f"{broker.uri}#accept=banks"], tmp_path / "o.sqlite", on_bank=on_bank)
    assert wait(lambda: broker.topic("of/available") == [b"online"])
    broker.publish("of/bank/set", b"good")
    broker.publish("of/bank/set", b"bad")
    assert wait(lambda: len(broker.topic("of/bank/state")) == 2)
    states = [json.loads(payload) for payload in broker.topic("of/bank/state")]
    assert states == [
        {"bank": "abc123", "error": None},
        {"bank": None, "error": "bank: not a label bank; expected safetensors"},
    ]
    links.close()


def test_webhook_posts_json_with_a_key(web: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """Path, query and credentials are kept; the body decodes to the event; the name shows no password."""
    links = Links.open([web.uri], tmp_path / "o.sqlite")
    links.publish(step(1), b"\xff\xd8jpeg")
    assert wait(lambda: len(web.keys) == 2)
    (status,) = links.close()
    path, headers, body = web.requests[0]
    assert path == "/hook?a=1"
    assert headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert headers["Idempotency-Key"] == "flight-1/0"
    assert msgspec.json.decode(body, type=Event) == step(1)
    assert web.requests[1][1]["Content-Type"] == "image/jpeg"
    assert "secret" not in status.name


def test_webhook_tries_again_and_gives_up_only_when_asked(web: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """503 keeps the message until 200; 422 means never, is counted, and does not block what follows."""
    links = Links.open([web.uri], tmp_path / "o.sqlite")
    web.status = 503
    links.publish(step(1))
    assert wait(lambda: len(web.requests) >= 1)
    assert links.status()[0].waiting == 1
    web.status = 200
    assert wait(lambda: web.keys == ["flight-1/0"])
    web.status = 422
    links.publish(step(2))
    assert wait(lambda: links.status()[0].shed == {"event-refused": 1})
    web.status = 200
    links.publish(step(3))
    assert wait(lambda: web.keys == ["flight-1/0", "flight-3/0"])
    links.close()


def test_cot_reaches_a_listener(tak: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """TCP and UDP carry each step under one uid, with ce from the error radius; pictures stay at home."""
    links = Links.open([tak.uri], tmp_path / "o.sqlite")
    links.publish(step(1), b"jpeg")
    links.publish(step(1, "end", 1))
    assert wait(lambda: len(tak.markers) == 2)
    links.close()
    events = [ElementTree.fromstring(raw) for raw in tak.markers]
    assert {event.get("uid") for event in events} == {"overflight-flight-1"}
    point = events[0].find("point")
    assert point is not None
    assert (point.get("lat"), point.get("lon"), point.get("ce")) == ("47.0001000", "8.0000000", "5.0")


def test_cot_is_sent_again_before_it_turns_stale(tak: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """An event that goes on is refreshed at a third of its stale time, and no more once it ended."""
    links = Links.open([f"{tak.uri}#stale=1"], tmp_path / "o.sqlite")
    links.publish(step(1))
    assert wait(lambda: len(tak.markers) >= 3, 5)
    links.publish(step(1, "end", 1))
    assert wait(lambda: tak.keys[-1] == "flight-1/1")
    count = len(tak.markers)
    assert not wait(lambda: len(tak.markers) > count, 1.0)
    links.close()


def test_cot_waits_for_a_listener_that_is_away(tak: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """What is published while nobody listens is kept, also over UDP on a network that says so, and comes later."""
    tak.stop()
    links = Links.open([tak.uri], tmp_path / "o.sqlite")
    links.publish(step(1))
    links.publish(step(2))
    assert wait(lambda: links.status()[0].trouble not in (None, "not connected yet"))
    assert links.status()[0].waiting == 2
    tak.start()
    assert wait(lambda: set(tak.keys) == {"flight-1/0", "flight-2/0"})
    links.close()


def test_what_a_dying_listener_did_not_read_is_sent_again(step: Step, wait: Wait, tmp_path: Path) -> None:
    """A listener that took the bytes and died without reading them gets them again when it is back."""
    ear = socket.create_server(("127.0.0.1", 0))
    place = ear.getsockname()
    links = Links.open([f"cot+tcp://127.0.0.1:{place[1]}"], tmp_path / "o.sqlite")
    deaf, _ = ear.accept()
    ear.close()
    links.publish(step(1))
    assert wait(lambda: links.status()[0].waiting == 0)
    deaf.close()
    back = socket.create_server(place)
    connection, _ = back.accept()
    connection.settimeout(5)
    assert b"overflight-flight-1" in connection.recv(65536)
    links.close()
    connection.close()
    back.close()


def test_a_marker_is_cursor_on_target() -> None:
    """Version, type, how, times and unknown values are as TAK clients expect; a label cannot break the XML."""
    now = datetime(2026, 5, 1, 12, 0, tzinfo=timezone.utc)
    event = Event("f-1", "begin", '<"&person\x07>', 0, 0, 1, 0.5, place=Place(-1.5, -2.5, 3.25), incident="f-0")
    root = ElementTree.fromstring(marker(event, "a-u-G", 600.0, now))
    assert (root.tag, root.get("version"), root.get("type"), root.get("how")) == ("event", "2.0", "a-u-G", "m-g")
    assert root.get("uid") == "overflight-f-0"
    assert root.get("time") == "2026-05-01T12:00:00.000Z"
    assert root.get("stale") == (now + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    point, contact = root.find("point"), root.find("detail/contact")
    assert point is not None
    assert contact is not None
    assert (point.get("ce"), point.get("le"), point.get("hae")) == ("3.2", "9999999.0", "9999999.0")
    assert contact.get("callsign") == '<"&person?>'


def test_the_autopilot_hears_texts_and_places_and_nothing_else(
    autopilot: Any, step: Step, wait: Wait, tmp_path: Path
) -> None:
    """STATUSTEXT on begin and end, the tracked point at each step, heartbeats as an onboard computer next to it."""
    links = Links.open([autopilot.uri], tmp_path / "o.sqlite")

    def heard(kind: str) -> list[Any]:
        links.tick()
        return [message for message in autopilot.heard if message.get_type() == kind]

    for sequence, kind in enumerate(("begin", "change", "end")):
        links.publish(step(1, kind, sequence))
    assert wait(lambda: len(heard("CAMERA_TRACKING_GEO_STATUS")) == 3 and len(heard("HEARTBEAT")) >= 2, 15)
    assert autopilot.texts == ["#1 person 93% 47.00010,8.00000", "#1 end person 93% 47.00010,8.00000"]
    beat, point = heard("HEARTBEAT")[0], heard("CAMERA_TRACKING_GEO_STATUS")[0]
    assert (beat.type, beat.autopilot, beat.get_srcSystem(), beat.get_srcComponent()) == (18, 8, 7, 191)
    assert (point.lat, point.lon, point.h_acc) == (470001000, 80000000, 5.0)
    links.close()
    allowed = {"HEARTBEAT", "STATUSTEXT", "CAMERA_TRACKING_GEO_STATUS"}
    assert {message.get_type() for message in autopilot.heard} == allowed


def test_a_loop_that_stalls_sends_no_heartbeat(autopilot: Any, step: Step, wait: Wait, tmp_path: Path) -> None:
    """Without tick the companion falls silent, although its link still runs."""
    links = Links.open([autopilot.uri], tmp_path / "o.sqlite")
    links.publish(step(1))
    assert wait(lambda: len(autopilot.texts) == 1)
    assert not [message for message in autopilot.heard if message.get_type() == "HEARTBEAT"]
    links.close()


@given(st.text(max_size=80), st.floats(0, 1), st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 10**9))
def test_a_status_text_fits_fifty_bytes(label: str, score: float, lat: float, lon: float, number: int) -> None:
    """Whatever the label, the text is at most 50 bytes of UTF-8 and its place is whole."""
    event = Event(f"f-{number}", "end", label, 0, 0, 0, score, place=Place(lat, lon, 1.0))
    said = text(event)
    assert len(said) <= 50
    assert said.decode().endswith(f"{lat:.5f},{lon:.5f}")


def test_a_ros_classification_is_filled() -> None:
    """Stamp, frame, class and score are where vision_msgs has them; the end of an event has no result."""

    def message() -> Any:
        stamp = types.SimpleNamespace(sec=0, nanosec=0)
        return types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp, frame_id=""), results=[])

    event = Event("f-1", "begin", "person", 0, 1_780_000_000_123_456_789, 1, 0.5)
    filled = classification(event, message, types.SimpleNamespace)
    assert (filled.header.stamp.sec, filled.header.stamp.nanosec) == (1_780_000_000, 123_456_789)
    assert filled.header.frame_id == "overflight_camera"
    assert [(one.class_id, one.score) for one in filled.results] == [("person", 0.5)]
    ended = msgspec.structs.replace(event, type="end")
    assert classification(ended, message, types.SimpleNamespace).results == []


def test_ros_without_ros_says_what_to_install(tmp_path: Path) -> None:
    """A link whose library is missing is refused before the flight, in one line."""
    pytest.importorskip("msgspec")
    try:
        import rclpy  # noqa: F401
    except ImportError:
        with pytest.raises(MissingError, match="source the ROS 2 setup"):
            Links.open(["ros2://drone1"], tmp_path / "o.sqlite")
    else:
        pytest.skip("ROS 2 is installed here")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("ftp://host", "expected one of mqtt://"),
        ("mqtt://", "no host"),
        ("cot+udp://239.2.3.1", "no port"),
        ("http://user:secret@host:99999/x", "Port out of range"),
        ("https://h/x#rate=fast", "expected a number above 0"),
        ("https://h/x#rate=0", "expected a number above 0"),
        ("https://h/x#speed=1", "option speed"),
        ("https://user:secret@h/x#rate", "expected"),
        ("", "expected one of"),
    ],
)
def test_a_wrong_address_is_told_without_its_password(uri: str, why: str) -> None:
    """One line: what was got and what was expected; credentials are never in it."""
    with pytest.raises(UsageError, match=why) as caught:
        LinkAddress.parse(uri)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_address_crashes_the_parser(uri: str) -> None:
    """Any text is an address or a UsageError."""
    try:
        LinkAddress.parse(uri)
    except UsageError as error:
        assert "--link" in str(error)
