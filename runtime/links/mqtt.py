"""MQTT 3.1.1: events to a broker, the aircraft's presence as a retained topic, and label banks from the ground.

Topics under the prefix: ``available`` (online, stopped, offline; retained, with a last will), ``events`` (JSON with
``type`` new, update or end), ``thumbnails/<event>`` (JPEG), and, with ``#accept=banks``, ``bank/set`` (a label bank
from the ground, its signature before it) and ``bank/state`` (the hash of the bank in use, or why one was refused;
retained).

An event counts as delivered when the broker has acknowledged it (QoS 1). A client is used for one connection only:
what was not acknowledged is sent again from the outbox, not by the library's own memory, which a restart empties.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from overflight.runtime.errors import OverflightError, missing_extra
from overflight.runtime.links.message import LinkDown, Message, brief
from overflight.runtime.links.tls import NO_FILES, TlsFiles, connecting_context
from overflight.runtime.worker import Faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.event import Event

TYPES = {"begin": "new", "change": "update", "end": "end"}
KEEPALIVE_S = 15
CONNECT_S = 5.0
ACKNOWLEDGE_S = 10.0
MAX_BANK_BYTES = 16 << 20


class MqttLink:
    """A connection to a broker."""

    overhead_bytes = 40  # IP, TCP and MQTT headers, without the topic
    grace_s = 0.0
    refresh_s: float | None = None

    def __init__(self, uri: str, on_bank: Callable[[bytes], str] | None = None, tls: TlsFiles = NO_FILES) -> None:
        try:
            import paho.mqtt.client as paho
        except ImportError as error:
            raise missing_extra("paho-mqtt", "mqtt") from error
        self._paho: Any = paho
        self._parts = urlsplit(uri)
        self._prefix = self._parts.path.strip("/") or "overflight"
        self._on_bank = on_bank
        self._tls = tls
        self._client: Any = None
        self._answered = threading.Event()
        self._answer = ""
        self._lost = threading.Event()
        self._before: dict[str, Event] = {}
        self.faults = Faults(f"{self._prefix}/bank/set")

    def open(self) -> None:
        """Connect, and say ``online`` once the broker has taken us."""
        paho = self._paho
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=f"overflight-{socket.gethostname()}-{self._prefix}"[:64],
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        if self._parts.username:
            client.username_pw_set(unquote(self._parts.username), unquote(self._parts.password or ""))
        secure = self._parts.scheme == "mqtts"
        if secure:
            client.tls_set_context(connecting_context(self._tls))
        client.will_set(f"{self._prefix}/available", "offline", qos=1, retain=True)
        client.connect_timeout = CONNECT_S
        client.on_connect = self._connected
        client.on_disconnect = lambda *_: self._lost.set()
        client.on_message = self._received
        self._answered.clear()
        self._lost.clear()
        host, port = str(self._parts.hostname), self._parts.port or (8883 if secure else 1883)
        try:
            client.connect(host, port, keepalive=KEEPALIVE_S)
            client.loop_start()
            self._client = client
            if not self._answered.wait(CONNECT_S) or self._answer:
                raise LinkDown(self._answer or "the broker does not answer")
            if self._on_bank is not None:
                client.subscribe(f"{self._prefix}/bank/set", qos=1)
            self._publish("available", b"online", retain=True)
        except (OSError, ValueError, LinkDown) as error:
            self._drop()
            raise LinkDown(f"{host}:{port}: {error}") from error

    def check(self) -> None:
        """See whether the broker still holds the connection."""
        if self._lost.is_set():
            raise LinkDown(f"{self._parts.hostname}: the connection was lost")

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the JSON of an event as ``{type, before, after}``, on a thin link its short form, or the JPEG."""
        if message.kind == "thumbnail":
            return message.picture
        event = message.event
        if brief:
            return msgspec.json.encode(_short(event))
        before = self._before.get(event.id)
        after = {"type": TYPES[event.type], "key": event.key, "before": before, "after": event}
        return msgspec.json.encode(after)

    def send(self, message: Message, payload: bytes) -> None:
        """Publish and wait for the broker's acknowledgement."""
        event = message.event
        self._publish(f"thumbnails/{event.id}" if message.kind == "thumbnail" else "events", payload)
        if message.kind == "event":
            self._before.pop(event.id, None)
            if event.type != "end":
                self._before[event.id] = event

    def close(self) -> None:
        """Say ``stopped`` and leave, so that the last will is not read."""
        if self._client is not None:
            with suppress(LinkDown):
                self._publish("available", b"stopped", retain=True, within_s=2.0)
            self._client.disconnect()
            self._drop()

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False, within_s: float = ACKNOWLEDGE_S) -> None:
        try:
            sent = self._client.publish(f"{self._prefix}/{topic}", payload, qos=1, retain=retain)
            deadline_s = time.monotonic() + within_s
            while not sent.is_published():
                self.check()
                if time.monotonic() > deadline_s:
                    raise LinkDown(f"{self._parts.hostname}: no acknowledgement within {within_s:g} s")
                sent.wait_for_publish(0.1)
        except (RuntimeError, ValueError) as error:
            raise LinkDown(f"{self._parts.hostname}: {error}") from error

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._answer = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _received(self, client: Any, data: Any, message: Any) -> None:
        """Take a bank from the ground and answer with its hash or the reason why not.

        Nothing may be raised: it would end paho's thread, and a retained message would do so at every connection.
        """
        if self._on_bank is None:
            return
        try:
            state = self._take_bank(self._on_bank, message.payload)
            client.publish(f"{self._prefix}/bank/state", msgspec.json.encode(state), qos=1, retain=True)
        except Exception as error:
            self.faults.note(error)

    def _take_bank(self, on_bank: Callable[[bytes], str], payload: bytes) -> dict[str, str | None]:
        try:
            if len(payload) > MAX_BANK_BYTES:
                raise OverflightError(f"a bank of {len(payload)} bytes; expected at most {MAX_BANK_BYTES}")
            return {"bank": on_bank(payload), "error": None}
        except OverflightError as error:
            return {"bank": None, "error": str(error)}
        except Exception as error:
            self.faults.note(error)
            return {"bank": None, "error": f"{type(error).__name__}: {error}; the bank in use stays"}

    def _drop(self) -> None:
        """Disconnect, so that only the outbox sends again what was not acknowledged."""
        client, self._client = self._client, None
        if client is not None:
            client.on_connect = client.on_disconnect = client.on_message = None
            with suppress(OSError):
                client.disconnect()
            client.loop_stop()


def _short(event: Event) -> dict[str, object]:
    short: dict[str, object] = msgspec.to_builtins(brief(event))
    return {**short, "type": TYPES[event.type]}
