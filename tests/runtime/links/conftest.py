"""The other ends of the links, for real and on loopback: a broker, a web server, a TAK listener, an autopilot."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest

from overflight.runtime.event import Event, EventType
from overflight.runtime.pose.footprint import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T0 = 1_780_000_000_000_000_000


def make_event(number: int, type: EventType = "begin", sequence: int = 0, label: str = "person") -> Event:  # noqa: A002
    """Make one step of an event with a place."""
    place = Place(47.0 + number * 1e-4, 8.0, 5.0, ((8.0, 47.0), (8.001, 47.0), (8.001, 47.001)))
    utc_ns = T0 + number * 1_000_000_000
    return Event(f"flight-{number}", type, label, T0, utc_ns, number, 0.93, sequence, "flight", place=place)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a loopback port that is free just now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Wait for a condition; return whether it came true."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


class Station(Protocol):
    """One other end: it can go away and come back, and keeps the key of every message that reached it."""

    uri: str
    keys: list[str]

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Broker:
    """mosquitto, with a subscriber whose session it keeps while it is down."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.uri = f"mqtt://127.0.0.1:{self.port}/of"
        self.keys: list[str] = []
        self.messages: list[tuple[str, bytes]] = []
        self._config = directory / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {directory}/\nuser root\nmax_queued_messages 0\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def start(self) -> None:
        """Start the broker, and the subscriber the first time."""
        self._process = subprocess.Popen(
            [str(shutil.which("mosquitto") or "/usr/sbin/mosquitto"), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert until(self._listens)
        if self._client is None:
            import paho.mqtt.client as paho

            self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="ground", clean_session=False)
            self._client.on_message = self._received
            self._client.on_connect = lambda client, *_: client.subscribe("of/#", qos=1)
            self._client.reconnect_delay_set(0.1, 0.3)
            self._client.connect("127.0.0.1", self.port)
            self._client.loop_start()
            assert until(self._client.is_connected)

    def stop(self) -> None:
        """Stop the broker; it writes down what its subscriber has not had yet."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(5)
            self._process = None

    def close(self) -> None:
        """Stop both."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        self.stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish from the ground."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(5)

    def topic(self, topic: str) -> list[bytes]:
        """Return what came on a topic."""
        return [payload for name, payload in self.messages if name == topic]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _received(self, client: object, data: object, message: Any) -> None:
        self.messages.append((message.topic, message.payload))
        if message.topic == "of/events":
            self.keys.append(msgspec.json.decode(message.payload)["key"])


class WebServer:
    """A web server that takes POSTs, or answers them with ``status``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://user:secret@127.0.0.1:{self.port}/hook?a=1"
        self.keys: list[str] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()

    def start(self) -> None:
        """Listen."""
        station = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                station._open.add(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                station.requests.append((self.path, dict(self.headers), body))
                if station.status == 200:
                    station.keys.append(self.headers["Idempotency-Key"])
                self.send_response(station.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Go away, with every connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for connection in self._open:
                connection.close()
            self._open.clear()


class TakListener:
    """A TAK server's or client's ear: CoT over TCP or UDP."""

    def __init__(self, kind: str) -> None:
        self._tcp = kind == "tcp"
        self.port = free_port(socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM)
        self.uri = f"cot+{kind}://127.0.0.1:{self.port}"
        self.keys: list[str] = []
        self.markers: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self._up = False

    def start(self) -> None:
        """Listen."""
        ear = socket.socket(socket.AF_INET, socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(("127.0.0.1", self.port))
        ear.settimeout(0.05)
        self._sockets, self._up = [ear], True
        if self._tcp:
            ear.listen()
        threading.Thread(target=self._accept if self._tcp else self._hear, args=(ear,), daemon=True).start()

    def stop(self) -> None:
        """Hang up and go away, having read what had arrived."""
        self._up = False
        time.sleep(0.15)
        for one in self._sockets:
            one.close()

    def _accept(self, ear: socket.socket) -> None:
        while self._up:
            try:
                connection, _ = ear.accept()
            except OSError:
                continue
            connection.settimeout(0.05)
            self._sockets.append(connection)
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        buffer = b""
        while self._up:
            try:
                data = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self.markers.append(line)
                self.keys += [key.decode() for key in re.findall(rb"(?:begin|change|end), (\S+?)(?:,|<)", line)]


class Autopilot:
    """pymavlink as a vehicle: heartbeats and telemetry to the companion's port, and a list of all that it receives."""

    def __init__(self, beat_s: float = 0.2, system: int = 7) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        self.uri = f"mavlink:udpin:127.0.0.1:{self.port}"
        self.texts: list[str] = []
        self.heard: list[Any] = []
        self._beat_s = beat_s
        self._system = system
        self._up = threading.Event()
        self._connection: Any = None
        self._began_s = time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def keys(self) -> list[str]:
        """The texts: their number and whether the event ended."""
        return self.texts

    def start(self) -> None:
        """Switch on."""
        os.environ.setdefault("MAVLINK20", "1")
        from pymavlink import mavutil

        self._connection = mavutil.mavlink_connection(
            f"udpout:127.0.0.1:{self.port}", source_system=self._system, source_component=1, dialect="common"
        )
        self._up.set()
        self._thread = threading.Thread(target=self._fly, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Switch off, having read what had arrived."""
        self._up.clear()
        if self._thread is not None:
            self._thread.join()
            self._connection.close()
            self._thread = None

    def _fly(self) -> None:
        beaten_s = 0.0
        while self._up.is_set():
            boot_ms = int((time.monotonic() - self._began_s) * 1000) + 100_000
            mav = self._connection.mav
            if time.monotonic() - beaten_s >= self._beat_s:
                beaten_s = time.monotonic()
                mav.heartbeat_send(2, 3, 0, 0, 4)
                mav.system_time_send(T0 // 1000 + boot_ms * 1000, boot_ms)
            mav.attitude_send(boot_ms, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0)
            mav.global_position_int_send(boot_ms, -202533000, 1490251000, 150_000, 50_000, 1000, 0, 0, 9000)
            deadline_s = time.monotonic() + 0.05
            while time.monotonic() < deadline_s:
                try:
                    message = self._connection.recv_match(blocking=True, timeout=0.01)
                except ConnectionError:
                    break
                if message is None:
                    continue
                self.heard.append(message)
                if message.get_type() == "STATUSTEXT":
                    self.texts.append(message.text)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start mosquitto."""
    pytest.importorskip("paho", reason="paho-mqtt is not installed")
    if shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").exists():
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    directory = tmp_path / "mosquitto"
    directory.mkdir()
    made = Broker(directory)
    made.start()
    yield made
    made.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Start a web server."""
    made = WebServer()
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=["tcp", "udp"])
def tak(request: pytest.FixtureRequest) -> Iterator[TakListener]:
    """Start a CoT listener."""
    made = TakListener(request.param)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def tcp_tak() -> Iterator[TakListener]:
    """Start a CoT listener over TCP."""
    made = TakListener("tcp")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def autopilot() -> Iterator[Autopilot]:
    """Start an autopilot."""
    pytest.importorskip("pymavlink", reason="pymavlink is not installed")
    made = Autopilot()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def step() -> Callable[..., Event]:
    """Return what makes an event."""
    return make_event


@pytest.fixture
def wait() -> Callable[..., bool]:
    """Return what waits for a condition."""
    return until
