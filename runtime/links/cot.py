"""Cursor on Target 2.0: events as markers on the maps of TAK clients.

A marker's ``uid`` is the incident's, so a repetition or a later step moves it and never doubles it; it is sent again
while its event goes on, before it turns stale. Over TCP a message counts as handed over when the other machine has
acknowledged its bytes, which the kernel is asked for; but the program that should read it may die first, so what was
handed over within ``grace_s`` of a break is sent again. Over UDP it counts when it was sent and nothing came back that
says nobody listens there: datagrams may be lost, and to a group none is ever confirmed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import struct
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from overflight.runtime.links.message import LinkDown, Message
from overflight.runtime.links.tls import NO_FILES, TlsFiles, connecting_context

if TYPE_CHECKING:
    from overflight.runtime.event import Event

UNKNOWN_M = "9999999.0"
CONNECT_S = 5.0
ACKNOWLEDGE_S = 10.0
UNREACHABLE_S = 0.02  # how long a local network takes to say that nobody listens
MAX_READS = 16  # of 64 kB, at a time: a server that floods the link must not hold it
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CotLink:
    """A TAK server or client over TCP or TLS, a client over UDP, or the mesh's multicast group."""

    overhead_bytes = 40
    grace_s = 10.0
    refresh_s: float | None

    def __init__(self, uri: str, stale_s: float, cot_type: str, tls: TlsFiles = NO_FILES) -> None:
        parts = urlsplit(uri)
        self._tls = tls if parts.scheme == "cot+tls" else None
        self._tcp = parts.scheme != "cot+udp"
        self._host, self._port = str(parts.hostname), parts.port or 0
        self._stale_s = stale_s
        self._type = cot_type
        self._socket: socket.socket | None = None
        self.refresh_s = stale_s / 3

    def open(self) -> None:
        """Connect; over UDP this only names the other side."""
        try:
            if self._tcp:
                self._socket = self._connect()
            else:
                family, kind, _, _, place = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
                self._socket = socket.socket(family, kind)
                if ipaddress.ip_address(place[0]).is_multicast:
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
                self._socket.connect(place)
            self._socket.setblocking(False)
        except OSError as error:
            raise self._broken(error) from error

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), timeout=CONNECT_S)
        if self._tls is None:
            return connection
        try:
            return connecting_context(self._tls).wrap_socket(connection, server_hostname=self._host)
        except (OSError, LinkDown):
            connection.close()
            raise

    def check(self) -> None:
        """Read whether the other side hung up."""
        if self._socket is None:
            raise LinkDown(f"{self._host}:{self._port}: not connected")
        try:
            _listen(self._socket)
        except OSError as error:
            raise self._broken(error) from error

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the marker's XML; None for a picture, and for an event whose place nobody knows."""
        if message.kind == "thumbnail" or (message.event.place is None and message.event.pose is None):
            return None
        return marker(message.event, self._type, self._stale_s, datetime.now(timezone.utc), brief=brief)

    def send(self, message: Message, payload: bytes) -> None:
        """Send, and ask the kernel whether it arrived."""
        if self._socket is None:
            raise LinkDown(f"{self._host}:{self._port}: not connected")
        try:
            if self._tcp:
                _deliver(self._socket, payload)
            else:
                self._socket.send(payload)
                time.sleep(UNREACHABLE_S)
            _listen(self._socket)
        except OSError as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _broken(self, error: OSError) -> LinkDown:
        self.close()
        return LinkDown(f"{self._host}:{self._port}: {error}")


def marker(event: Event, cot_type: str, stale_s: float, now: datetime, *, brief: bool = False) -> bytes:
    """Return an event as a CoT 2.0 XML line. ``event`` must have a place or a pose.

    ``ce`` is the place's error radius; of a camera position it is unknown, since what was seen may lie anywhere in
    view. ``start`` is when the event began, ``stale`` counts from ``now``: what was stored and forwarded is still news.
    """
    lat, lon, error = UNKNOWN_M, UNKNOWN_M, UNKNOWN_M
    if event.place is not None:
        lat, lon, error = f"{event.place.lat_deg:.7f}", f"{event.place.lon_deg:.7f}", f"{event.place.error_m:.1f}"
    elif event.pose is not None:
        lat, lon = f"{event.pose.lat_deg:.7f}", f"{event.pose.lon_deg:.7f}"
    began = now  # CoT demands a start; the remarks say so where it is only the time of sending
    if event.started_utc_ns is not None:
        began = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=event.started_utc_ns // 1000)
    uid = quoteattr(_NOT_XML.sub("?", f"overflight-{event.incident or event.id}"))
    label = quoteattr(_NOT_XML.sub("?", event.label))
    remarks = ""
    if not brief:
        said = f"{event.label} {event.score:.0%}, {event.type}, {event.key}"
        if event.place is None:
            said += ", position of the camera"
        elif event.place.stale:
            said += ", stale position"
        if event.started_utc_ns is None:
            said += ", capture time unknown"
        text = _NOT_XML.sub("?", said).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        remarks = f"<remarks>{text}</remarks>"
    return (
        f'<event version="2.0" uid={uid} type={quoteattr(cot_type)} how="m-g" time="{_time(now)}" '
        f'start="{_time(began)}" stale="{_time(now + timedelta(seconds=stale_s))}">'
        f'<point lat="{lat}" lon="{lon}" hae="{UNKNOWN_M}" ce="{error}" le="{UNKNOWN_M}"/>'
        f"<detail><contact callsign={label}/>{remarks}</detail></event>\n"
    ).encode()


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _deliver(connection: socket.socket, payload: bytes) -> None:
    """Send over TCP and wait until the other machine has acknowledged every byte."""
    import fcntl  # not on Windows, where nothing flies
    import termios

    deadline_s = time.monotonic() + ACKNOWLEDGE_S
    left = memoryview(payload)
    while left:
        try:
            left = left[connection.send(left) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            _wait(deadline_s)
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0]:
        _wait(deadline_s)


def _wait(deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise TimeoutError(f"no acknowledgement within {ACKNOWLEDGE_S:g} s")
    time.sleep(0.01)


def _listen(connection: socket.socket) -> None:
    """Discard what was received; raise OSError where the other side refused or closed the connection."""
    try:
        for _ in range(MAX_READS):
            if not connection.recv(65536):
                raise ConnectionResetError("the other side hung up")
    except (BlockingIOError, ssl.SSLWantReadError):
        return
